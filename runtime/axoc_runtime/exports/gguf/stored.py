"""The trained model's tensors as llama.cpp counts them: a layer's experts are one tensor, and one may span several files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from axoc_runtime.exports.gguf.layout import Array
from axoc_runtime.exports.hugging_face import tensor_files
from axoc_runtime.exports.source import Source

EXPERT: Final = re.compile(r"(.*\.experts)\.(\d+)\.(\w+\.weight)")
"""(up to the experts), (which), (its tensor): transformers stores each expert apart."""


def parts(source: Source) -> Mapping[str, tuple[str, ...]]:
    """Name -> the stored tensors it is made of, in order. A head that is the embedding is left out: llama.cpp takes that."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name in tensor_files(source.model):
        if name == "lm_head.weight" and source.config.tie_word_embeddings:
            continue
        expert = EXPERT.fullmatch(name)
        if expert is None:
            found[name].append((0, name))
        else:
            found[f"{expert[1]}.{expert[3]}"].append((int(expert[2]), name))
    return {name: tuple(stored for _, stored in sorted(of)) for name, of in found.items()}


def shapes(source: Source) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Of ``tensors``, in their order; nothing is loaded."""
    files = _Files(source)
    for name, of in parts(source).items():
        shape = tuple(files[of[0]].get_slice(of[0]).get_shape())
        yield name, ((len(of), *shape) if EXPERT.fullmatch(of[0]) else shape)


def tensors(source: Source) -> Iterator[tuple[str, Array]]:
    """Name and values in fp32, one at a time; experts as [experts, rows, columns]."""
    files = _Files(source)
    for name, of in parts(source).items():
        values = [files[stored].get_tensor(stored).float().numpy() for stored in of]
        yield name, np.stack(values) if EXPERT.fullmatch(of[0]) else values[0]


class _Files:
    """Shards by the tensors they hold, each opened once: they are mapped into memory, not read."""

    def __init__(self, source: Source) -> None:
        self.files = tensor_files(source.model)
        self.opened: dict[str, Any] = {}

    def __getitem__(self, tensor: str) -> Any:
        from safetensors import safe_open

        file = str(self.files[tensor])
        if file not in self.opened:
            self.opened[file] = safe_open(file, "pt")
        return self.opened[file]
