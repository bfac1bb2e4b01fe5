"""OpenVINO's intermediate representation, in fp16, with keys and values kept inside as state."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from axoc_runtime.exports.base import CannotExport, Consumer, Exporter, Logits
from axoc_runtime.exports.onnx.exporter import PROBE
from axoc_runtime.exports.onnx.graph import input_names, program
from axoc_runtime.exports.onnx.runtime import check_cache
from axoc_runtime.exports.quiet import silent
from axoc_runtime.exports.source import Source

FILE: Final = "openvino_model.xml"


class OpenVino(Exporter):
    name = "openvino"
    packages = ("openvino",)

    def bytes_needed(self, source: Source, variant: str) -> int:
        return 6 * source.parameters

    def write(self, source: Source, folder: Path, variant: str) -> tuple[str, ...]:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # reports what is converted
        import openvino

        with silent():
            model = openvino.convert_model(program(source))
        _name(model, input_names(source.config))
        keep_state(model)
        openvino.save_model(model, folder / FILE, compress_to_fp16=True)
        source.tokenizer.save_pretrained(folder)
        source.config.save_pretrained(folder)
        return ("Weights in fp16; the cache is the model's state, with beam_idx as openvino-genai sets it.",)

    def consumer(self, source: Source, folder: Path, variant: str) -> Consumer:
        loaded, ids = Compiled(folder / FILE), source.texts[0].ids[:PROBE]
        whole = loaded.logits(ids)
        loaded.logits(ids[:-1])
        check_cache(whole, loaded.step(ids[-1:], len(ids) - 1))
        return loaded

    def usage(self, source: Source, variant: str) -> str:
        return f'import openvino\nmodel = openvino.Core().compile_model("{FILE}", "CPU")'


def _name(model: Any, names: list[str]) -> None:
    """Inputs and outputs come in the program's order, without names of their own."""
    for given, name in zip(model.inputs, names, strict=True):
        given.get_tensor().set_names({name})
    outputs = ["logits", *(n.replace("past_key_values", "present") for n in names[3:])]
    for given, name in zip(model.outputs, outputs, strict=True):
        given.get_tensor().set_names({name})


def keep_state(model: Any) -> None:
    """Turns the cache's inputs and outputs into variables of the model, empty at first, reordered by ``beam_idx``."""
    from openvino import PartialShape, Type, opset13
    from openvino._offline_transformations import apply_make_stateful_transformation

    named = {name: i for i in model.inputs for name in i.get_names()}
    beam = opset13.parameter(PartialShape([-1]), Type.i32, name="beam_idx")
    beam.output(0).set_names({"beam_idx"})
    model.add_parameters([beam])
    pairs = {n: n.replace("past_key_values", "present") for n in named if n.startswith("past_key_values.")}
    for name in pairs:
        readers = named[name].get_target_inputs()
        chosen = opset13.gather(named[name], beam, opset13.constant(0, Type.i64))
        for reader in readers:
            reader.replace_source_output(chosen.output(0))
    model.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(model, pairs)
    batch = opset13.gather(
        opset13.shape_of(model.input("input_ids"), Type.i64),
        opset13.constant([0], Type.i64),
        opset13.constant(0, Type.i64),
    )
    for operation in model.get_ops():
        if operation.get_type_name() == "ReadValue":
            operation.set_arguments([_nothing(operation, batch)])
    model.validate_nodes_and_infer_types()


def _nothing(read: Any, batch: Any) -> Any:
    """No cached tokens of each sequence: [batch, heads, 0, head size]."""
    from openvino import Type, opset13

    shape = read.get_output_partial_shape(0)
    sizes = [opset13.constant([d.get_length() if d.is_static else 0], Type.i64) for d in list(shape)[1:]]
    kind = read.get_output_element_type(0)
    return opset13.broadcast(opset13.constant(0.0, kind), opset13.concat([batch, *sizes], axis=0))


class Compiled:
    """OpenVINO with the model on the CPU, computing in fp32."""

    def __init__(self, file: Path) -> None:
        import openvino

        self.name = f"openvino {openvino.__version__.split('-')[0]}"
        try:
            exact = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}  # its default cache is of 8 bits
            compiled = openvino.Core().compile_model(file, "CPU", exact)
        except RuntimeError as error:
            raise CannotExport(f"openvino cannot load the model: {str(error).splitlines()[-1]}") from None
        self.request: Any = compiled.create_infer_request()
        self.inputs = {i.get_any_name() for i in compiled.inputs}

    def logits(self, ids: Sequence[int]) -> Logits:
        self.request.reset_state()
        return self.step(ids, 0)

    def step(self, ids: Sequence[int], before: int) -> Logits:
        """``before``: tokens that the state holds."""
        feed = {
            "input_ids": np.array([list(ids)], dtype=np.int64),
            "attention_mask": np.ones((1, before + len(ids)), dtype=np.int64),
            "position_ids": np.arange(before, before + len(ids), dtype=np.int64)[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        self.request.infer({k: v for k, v in feed.items() if k in self.inputs})
        return np.array(self.request.get_tensor("logits").data[0], dtype=np.float32)
