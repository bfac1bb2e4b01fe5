"""Hugging Face's layout: safetensors in shards, config, tokenizer. Read by transformers, and by most servers."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from axoc_runtime.exports.base import NONE, CannotExport, Consumer, Exporter
from axoc_runtime.exports.bitsandbytes import METHODS, load_quantized, write_quantized
from axoc_runtime.exports.reference import Transformers
from axoc_runtime.exports.source import Source

SHARD_BYTES: Final = 5_000_000_000
"""As large as hubs and mirrors take without special care."""


class Safetensors(Exporter):
    name = "safetensors"
    variants = (NONE, *METHODS)
    causal_only = False

    def packages_of(self, variant: str) -> tuple[str, ...]:
        return () if variant == NONE else ("bitsandbytes",)

    def refuses(self, source: Source, variant: str) -> str | None:
        if variant == NONE or source.causal:
            return None
        return "a reward model's head is written without a quantization: ask for safetensors"

    def write(self, source: Source, folder: Path, variant: str) -> tuple[str, ...]:
        if variant == NONE:
            write_folder(source, folder)
        else:
            write_quantized(source, folder, variant)
        return ()

    def consumer(self, source: Source, folder: Path, variant: str) -> Consumer:
        if variant == NONE:
            same_weights(source, folder)
            return Transformers(source, folder)
        note = f", bitsandbytes {version('bitsandbytes')}"
        return Transformers(source, folder, note=note, model=load_quantized(folder))

    def usage(self, source: Source, variant: str) -> str:
        return f'from transformers import {source.kind}\nmodel = {source.kind}.from_pretrained(".", dtype="auto")'


def write_folder(source: Source, folder: Path, dtype: Any = None, shard_bytes: int = SHARD_BYTES) -> None:
    """The trained model in shards, in ``dtype`` or as it is stored, with its tokenizer.

    Through transformers, which undoes what it changed while loading, so that the names are those others expect.
    """
    import transformers

    kind = getattr(transformers, source.kind)
    model = kind.from_pretrained(source.model, dtype=dtype or "auto", use_safetensors=True)
    model.save_pretrained(folder, max_shard_size=shard_bytes)
    source.save_reader(folder)


def same_weights(source: Source, folder: Path) -> None:
    """Every tensor is byte for byte that of the trained model. Raises CannotExport."""
    import torch
    from safetensors import safe_open

    wanted, found = tensor_files(source.model), tensor_files(folder)
    tied = {name for name in set(wanted) - set(found) if _is_there(wanted, name, found)}
    if missing := sorted(set(wanted) - tied ^ set(found)):
        raise CannotExport(f"the shards do not hold the same tensors: {', '.join(missing[:3])}")
    for name, file in ((n, f) for n, f in wanted.items() if n not in tied):
        with safe_open(file, "pt") as ours, safe_open(found[name], "pt") as theirs:
            if not torch.equal(ours.get_tensor(name), theirs.get_tensor(name)):
                raise CannotExport(f"the tensor {name} is not the trained one")


def _is_there(wanted: dict[str, Path], name: str, found: dict[str, Path]) -> bool:
    """Under another name: of tied weights, which sharded strategies gather both of, transformers writes one."""
    import torch
    from safetensors import safe_open

    with safe_open(wanted[name], "pt") as ours:
        shape, tensor = ours.get_slice(name).get_shape(), ours.get_tensor(name)
    for other, file in found.items():
        with safe_open(file, "pt") as theirs:
            if theirs.get_slice(other).get_shape() == shape and torch.equal(theirs.get_tensor(other), tensor):
                return True
    return False


def tensor_files(folder: Path) -> dict[str, Path]:
    """The file of each tensor; where there is an index, as it says."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: folder / file for name, file in named.items()}
    found: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            found |= dict.fromkeys(opened.keys(), file)
    return found
