"""Which formats there are. Built-ins are a static table: a bundle carries sources, not an installed distribution.
Plugins come from entry points, and one of the same name overrides the built-in.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.exports.base import Exporter

GROUP: Final = "axoc_runtime.exporters"
_PACKAGE: Final = "axoc_runtime.exports"

BUILTIN: Final[dict[str, str]] = {
    "safetensors": f"{_PACKAGE}.hugging_face:Safetensors",
    "pytorch": f"{_PACKAGE}.state_dict:PytorchStateDict",
    "vllm": f"{_PACKAGE}.vllm:Vllm",
    "gguf": f"{_PACKAGE}.gguf.exporter:Gguf",
    "onnx": f"{_PACKAGE}.onnx.exporter:Onnx",
    "ort": f"{_PACKAGE}.onnx.mobile:Ort",
    "openvino": f"{_PACKAGE}.openvino:OpenVino",
    "tensorrt": f"{_PACKAGE}.tensorrt:TensorRt",
    "mlx": f"{_PACKAGE}.mlx:Mlx",
}
"""Format -> ``module:Class``."""


def known() -> list[str]:
    return sorted({*BUILTIN, *_plugins()})


@cache
def exporter(name: str) -> Exporter:
    """Raises RuntimeFailure where a plugin is broken."""
    plugins = _plugins()
    if name in plugins:
        return _made(name, plugins[name])
    module, _, attribute = BUILTIN[name].partition(":")
    made: Exporter = getattr(import_module(module), attribute)()
    return made


def _plugins() -> dict[str, EntryPoint]:
    return {p.name: p for p in entry_points(group=GROUP) if BUILTIN.get(p.name) != p.value}


def _made(name: str, point: EntryPoint) -> Exporter:
    """A broken plugin is named, not passed over."""
    try:
        made = point.load()()
    except Exception as error:  # a plugin may fail in any way
        message = f"the exporter plugin {name!r} ({point.value}) cannot be loaded: {type(error).__name__}: {error}"
        raise RuntimeFailure(message, EXIT_INPUTS, "repair or remove the plugin") from error
    if not isinstance(made, Exporter):
        message = f"the exporter plugin {name!r} ({point.value}) is no Exporter"
        raise RuntimeFailure(message, EXIT_INPUTS, "subclass axoc_runtime.exports.base.Exporter")
    return made
