"""TensorRT: an ONNX graph of standard operators, the shapes it serves, and the script that builds the engine on the GPU it is for."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from axoc_runtime.exports.base import CannotExport, Consumer, Exporter, Logits, NotChecked
from axoc_runtime.exports.files import move_contents
from axoc_runtime.exports.onnx.graph import FILE, cache_shape, decoder, input_names
from axoc_runtime.exports.onnx.runtime import Session
from axoc_runtime.exports.source import Source

ENGINE, SCRIPT, SHAPES = "model.engine", "build.sh", "shapes.json"
LONGEST: Final = 4096
"""Tokens in the engine's largest shape, where the model's own limit is larger: its buffers are made for it."""
BUILD_SECONDS: Final = 3600


class TensorRt(Exporter):
    name = "tensorrt"
    packages = ("onnx", "onnxscript", "onnxruntime")

    def bytes_needed(self, source: Source, variant: str) -> int:
        return 8 * source.parameters

    def write(self, source: Source, folder: Path, variant: str) -> tuple[str, ...]:
        move_contents(decoder(source, plain=True).folder, folder, keep=True)
        found = shapes(source.config)
        (folder / SHAPES).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        script = folder / SCRIPT
        script.write_text(build_script(found), encoding="utf-8")
        script.chmod(0o755)
        if shutil.which("trtexec") is None:
            return (f"No engine: TensorRT is not here. On the GPU that will serve it: ./{SCRIPT}",)
        _build(folder)
        return ("The engine is of this GPU and this TensorRT only.",)

    def consumer(self, source: Source, folder: Path, variant: str) -> Consumer | NotChecked:
        """onnxruntime, of the graph. That an engine was built is TensorRT's own check; its logits are not measured here."""
        return Graph(folder / FILE, source.config, engine=(folder / ENGINE).is_file())

    def usage(self, source: Source, variant: str) -> str:
        return f"./{SCRIPT}   # trtexec writes {ENGINE}"


class Graph(Session):
    def __init__(self, file: Path, config: Any, *, engine: bool) -> None:
        super().__init__(file, config)
        told = "engine built by TensorRT, its logits not measured" if engine else "not checked: no TensorRT here"
        self.name = f"{self.name} (the graph; {told})"

    def logits(self, ids: Sequence[int]) -> Logits:
        return super().logits(ids)


def shapes(config: Any) -> dict[str, dict[str, list[int]]]:
    """Smallest, commonest and largest shape of every input: one sequence, from its prompt to a step with a full cache."""
    _, heads, size = cache_shape(config)
    most = min(LONGEST, int(config.max_position_embeddings))
    tokens = {"min": 1, "opt": 1, "max": most}
    cached = {"min": 0, "opt": most // 2, "max": most - 1}
    found: dict[str, dict[str, list[int]]] = {}
    for name in input_names(config):
        if name == "attention_mask":
            found[name] = {"min": [1, 1], "opt": [1, most // 2 + 1], "max": [1, most]}
        elif name.startswith("past_key_values."):
            found[name] = {k: [1, heads, v, size] for k, v in cached.items()}
        else:
            found[name] = {k: [1, v] for k, v in tokens.items()}
    return found


def build_script(found: dict[str, dict[str, list[int]]]) -> str:
    options = [f"  --{kind}Shapes={_listed(found, kind)}" for kind in ("min", "opt", "max")]
    lines = ["trtexec", f"  --onnx={FILE}", f"  --saveEngine={ENGINE}", "  --fp16", *options]
    return '#!/usr/bin/env bash\nset -euo pipefail\ncd "$(dirname "$0")"\n' + " \\\n".join(lines) + "\n"


def _listed(found: dict[str, dict[str, list[int]]], kind: str) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, sizes[kind]))}" for name, sizes in found.items())


def _build(folder: Path) -> None:
    try:
        subprocess.run(
            [str(folder / SCRIPT)],
            check=True,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = str(error.stderr or error).strip().splitlines()
        raise CannotExport(f"trtexec failed: {said[-1] if said else error}", f"see what ./{SCRIPT} prints") from error
