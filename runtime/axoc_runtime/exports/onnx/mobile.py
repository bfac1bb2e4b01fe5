"""ONNX Runtime Mobile: the graph, optimized, as one flat file that is mapped into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from axoc_runtime.exports.base import CannotExport, Consumer, Exporter
from axoc_runtime.exports.onnx.exporter import PROBE
from axoc_runtime.exports.onnx.graph import decoder, windowed
from axoc_runtime.exports.onnx.runtime import Session, check_cache
from axoc_runtime.exports.source import Source

FILE: Final = "model.ort"
LARGEST_BYTES: Final = 2 << 30
"""Of a flatbuffer, whose offsets are 32-bit and signed."""


class Ort(Exporter):
    name = "ort"
    packages = ("onnx", "onnxscript", "onnxruntime", "onnxruntime_genai")

    def refuses(self, source: Source, variant: str) -> str | None:
        size = 4 * source.parameters
        if size < LARGEST_BYTES:
            return None
        return f"an .ort file holds at most 2 GiB, and this model is {size / 2**30:.1f} GiB in fp32"

    def bytes_needed(self, source: Source, variant: str) -> int:
        return 12 * source.parameters

    def write(self, source: Source, folder: Path, variant: str) -> tuple[str, ...]:
        import onnxruntime

        graph = decoder(source, plain=windowed(source.config))
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(folder / FILE)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.save_model_format", "ORT")
        try:
            onnxruntime.InferenceSession(str(graph.file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own classes, which differ between versions
            raise CannotExport(f"onnxruntime cannot write the flat file: {str(error).splitlines()[0]}") from None
        source.tokenizer.save_pretrained(folder)
        return ("Optimized for the CPU; uses onnxruntime's own operators, so it needs a build that has them.",)

    def consumer(self, source: Source, folder: Path, variant: str) -> Consumer:
        session, ids = Session(folder / FILE, source.config), source.texts[0].ids[:PROBE]
        check_cache(session.logits(ids), session.step(ids[-1:], session.step(ids[:-1], None)[1])[0])
        return session

    def usage(self, source: Source, variant: str) -> str:
        return f'import onnxruntime\nsession = onnxruntime.InferenceSession("{FILE}")'
