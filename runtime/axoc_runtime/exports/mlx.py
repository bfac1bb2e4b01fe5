"""MLX, Apple's array library: mlx-lm reads Hugging Face's layout. Its CPU build for Linux checks it without a Mac."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from axoc_runtime.exports.base import NONE, CannotExport, Consumer, Exporter, Logits, NotChecked
from axoc_runtime.exports.files import move_contents
from axoc_runtime.exports.hugging_face import write_folder
from axoc_runtime.exports.quiet import silent
from axoc_runtime.exports.source import Source
from axoc_runtime.files import write_json

GROUP: Final = 64
"""Columns that share a scale: mlx-lm's own default."""

RENAMED: Final[Mapping[str, Mapping[str, str]]] = {
    "qwen3_moe": {"num_local_experts": "num_experts"},
}
"""transformers' model type -> its parameter's name -> the older one."""


class Mlx(Exporter):
    name = "mlx"
    variants = (NONE, "int4", "int8")

    def packages_of(self, variant: str) -> tuple[str, ...]:
        return () if variant == NONE else ("mlx", "mlx_lm")  # mlx-lm itself quantizes

    def refuses(self, source: Source, variant: str) -> str | None:
        window = getattr(source.config, "sliding_window", None)
        if source.architecture == "Gemma2ForCausalLM" and window and window < source.config.max_position_embeddings:
            return f"mlx-lm computes Gemma 2 without its sliding window of {window:,}"
        return None

    def write(self, source: Source, folder: Path, variant: str) -> tuple[str, ...]:
        if variant == NONE:
            write_folder(source, folder)
            _older_names(folder / "config.json")
            return ()
        from mlx_lm import convert

        plain, made = source.work / "mlx-plain", source.work / f"mlx-{variant}"
        write_folder(source, plain)
        _older_names(plain / "config.json")
        with silent():
            convert(str(plain), str(made), quantize=True, q_bits=int(variant.removeprefix("int")), q_group_size=GROUP)
        move_contents(made, folder, keep=False)
        return ()

    def consumer(self, source: Source, folder: Path, variant: str) -> Consumer | NotChecked:
        if find_spec("mlx") is None or find_spec("mlx_lm") is None:
            return NotChecked(reason="not checked: mlx and mlx-lm are not installed here")
        return MlxLm(folder)

    def usage(self, source: Source, variant: str) -> str:
        return 'mlx_lm.generate --model . --prompt "…"'


def _older_names(config: Path) -> None:
    """mlx-lm reads some parameters under their names of transformers 4, and takes defaults where they are missing."""
    found = json.loads(config.read_text(encoding="utf-8"))
    rotary = dict(found.get("rope_parameters") or {})
    if found["model_type"] == "gpt_neox":
        found["rotary_emb_base"], found["rotary_pct"] = rotary["rope_theta"], rotary["partial_rotary_factor"]
    elif "rope_theta" in rotary:
        found["rope_theta"] = rotary.pop("rope_theta")
        found["rope_scaling"] = None if rotary.get("rope_type", "default") == "default" else rotary
    for new, old in RENAMED.get(found["model_type"], {}).items():
        found[old] = found[new]
    write_json(config, found)


class MlxLm:
    """mlx-lm with the folder's model."""

    def __init__(self, folder: Path) -> None:
        from mlx_lm.utils import load_model

        try:
            self.model: Any = load_model(folder)[0]
        except ValueError as error:  # an architecture it does not know
            raise CannotExport(f"mlx-lm cannot load this model: {error}", "take mlx out of export.formats") from None
        self.name = f"mlx-lm {version('mlx-lm')}"

    def logits(self, ids: Sequence[int]) -> Logits:
        import mlx.core as mx

        found = self.model(mx.array([list(ids)]))[0].astype(mx.float32)
        mx.eval(found)
        return np.array(found)
