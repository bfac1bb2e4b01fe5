"""The GGUF file, in f16 or a k-quant, with a Modelfile for Ollama."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import numpy as np

from axoc_runtime.exports.base import NONE, CannotExport, Consumer, Exporter
from axoc_runtime.exports.gguf import vocabulary as vocabularies
from axoc_runtime.exports.gguf.layout import (
    LAYOUTS,
    Layout,
    changed,
    extra_tensors,
    known_name,
    refusal,
    write_parameters,
)
from axoc_runtime.exports.gguf.llama_cpp import Loaded
from axoc_runtime.exports.gguf.mixture import FILE_TYPES, mixed, packed
from axoc_runtime.exports.gguf.modelfile import modelfile
from axoc_runtime.exports.gguf.stored import shapes, tensors
from axoc_runtime.exports.source import Source

FILE: Final = "model.gguf"
LARGEST_F16: Final = 65504.0


class Gguf(Exporter):
    name = "gguf"
    packages = ("gguf", "xllamacpp")
    variants = (NONE, *(t for t in FILE_TYPES if t not in ("f16", "bf16")))

    def refuses(self, source: Source, variant: str) -> str | None:
        return refusal(source.config, source.architecture)

    def bytes_needed(self, source: Source, variant: str) -> int:
        return 2 * source.parameters

    def write(self, source: Source, folder: Path, variant: str) -> tuple[str, ...]:
        known, split = _vocabulary(source)
        _write(source, folder / FILE, variant, known, split)
        text, note = modelfile(source, FILE)
        (folder / "Modelfile").write_text(text, encoding="utf-8")
        return (note,)

    def consumer(self, source: Source, folder: Path, variant: str) -> Consumer:
        loaded = Loaded(folder / FILE)
        own = [source.tokenizer.decode(t.ids, skip_special_tokens=True) for t in source.texts]
        if wrong := vocabularies.differing(source, loaded, own):
            message = (
                f"llama.cpp reads {len(wrong)} of {len(own)} held-out texts as other tokens than the trained tokenizer"
            )
            raise CannotExport(message, "take gguf out of export.formats; the tokenizer is not one of llama.cpp's")
        return loaded

    def usage(self, source: Source, variant: str) -> str:
        return f"llama-cli -m {FILE}\nollama create my-model -f Modelfile"


def _vocabulary(source: Source) -> tuple[vocabularies.Vocabulary, str]:
    """With the name of its way of splitting, found once for all quantizations."""
    if "gguf" not in source.shared:
        known = vocabularies.read_vocabulary(source)
        source.shared["gguf"] = known, vocabularies.find_split(source, known)
    found: tuple[vocabularies.Vocabulary, str] = source.shared["gguf"]
    return found


def _write(source: Source, file: Path, variant: str, vocabulary: vocabularies.Vocabulary, split: str) -> None:
    """What the tensors are is written first, then one after the other: a model need not fit into memory twice."""
    import gguf

    layout = LAYOUTS[source.architecture]
    matrices = ("bf16" if _beyond_f16(source) else "f16") if variant == NONE else variant
    writer = gguf.GGUFWriter(file, layout.arch)
    writer.add_name(source.run.name)
    writer.add_file_type(FILE_TYPES[matrices])
    write_parameters(writer, source.config, layout)
    vocabularies.write_vocabulary(writer, source, vocabulary, split)
    extra, kinds = extra_tensors(source.config), _kinds(source, layout, matrices)
    for name, tensor in extra.items():
        writer.add_tensor_info(name, tensor.shape, tensor.dtype, tensor.nbytes)
    for name, shape, kind in kinds.values():
        block, size = gguf.GGML_QUANT_SIZES[kind]
        writer.add_tensor_info(name, shape, np.dtype(np.float32), math.prod(shape) // block * size, raw_dtype=kind)
    vocabularies.write_header(writer)
    for tensor in extra.values():
        writer.write_tensor_data(tensor)
    for name, tensor in tensors(source):
        writer.write_tensor_data(packed(changed(name, tensor, source.config, layout), kinds[name][2]))
    writer.close()


def _kinds(source: Source, layout: Layout, matrices: str) -> dict[str, tuple[str, tuple[int, ...], Any]]:
    """transformers' name -> (llama.cpp's name, shape, type), in the order of the files. Raises CannotExport."""
    import gguf

    names = gguf.get_tensor_name_map(_arch(layout.arch), source.config.num_hidden_layers)
    found = {}
    for name, shape in shapes(source):
        target = names.get_name(known_name(name), try_suffixes=(".weight", ".bias"))
        if target is None:
            raise CannotExport(f"llama.cpp has no place for the tensor {name}")
        vector = gguf.GGMLQuantizationType.F32  # as llama.cpp wants them
        found[name] = (
            target,
            shape,
            vector if len(shape) < 2 else mixed(matrices, target, source.config, shape[-1]),
        )
    return found


def _beyond_f16(source: Source) -> bool:
    return any(float(np.abs(tensor).max()) > LARGEST_F16 for _, tensor in tensors(source) if tensor.ndim > 1)


def _arch(name: str) -> Any:
    import gguf

    return next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
