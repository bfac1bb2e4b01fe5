"""The ONNX format."""

from __future__ import annotations

from pathlib import Path

from axoc_runtime.exports.base import NONE, Consumer, Exporter
from axoc_runtime.exports.files import move_contents
from axoc_runtime.exports.onnx.graph import FILE, decoder
from axoc_runtime.exports.onnx.runtime import (
    CACHE_TOLERANCE,
    CACHE_TOLERANCE_QUANTIZED,
    GenAi,
    Session,
    check_cache,
)
from axoc_runtime.exports.source import Source

PROBE = 16
"""Tokens of the text that the cache is checked on."""


class Onnx(Exporter):
    name = "onnx"
    packages = ("onnx", "onnxscript", "onnxruntime", "onnxruntime_genai")
    variants = (NONE, "int4")

    def bytes_needed(self, source: Source, variant: str) -> int:
        return 8 * source.parameters  # in fp32, and a copy

    def write(self, source: Source, folder: Path, variant: str) -> tuple[str, ...]:
        graph = decoder(source, "fp32" if variant == NONE else variant)
        move_contents(graph.folder, folder, keep=variant == NONE)
        how = "with onnxruntime-genai, or onnxruntime" if graph.runs_in_genai else "with onnxruntime"
        return (f"Made by {graph.maker}; run it {how}.",)

    def consumer(self, source: Source, folder: Path, variant: str) -> Consumer:
        ids = source.texts[0].ids[:PROBE]
        if (folder / "genai_config.json").is_file():
            genai = GenAi(folder, source.config)
            tolerance = CACHE_TOLERANCE if variant == NONE else CACHE_TOLERANCE_QUANTIZED
            check_cache(genai.logits(ids), genai.next_logits(ids), tolerance)
            return genai
        session = Session(folder / FILE, source.config)
        check_cache(session.logits(ids), session.step(ids[-1:], session.step(ids[:-1], None)[1])[0])
        return session

    def usage(self, source: Source, variant: str) -> str:
        return 'import onnxruntime_genai as og\nmodel = og.Model(".")'
