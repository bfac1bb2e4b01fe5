"""One dispatched operation: its name, and the shapes that it was given and gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any


@dataclass(frozen=True)
class Shape:
    """A tensor's."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    bytes: float
    """Of an element."""

    @property
    def elements(self) -> float:
        return float(prod(self.sizes))

    @cached_property
    def num_bytes(self) -> float:
        """That lie in memory: what is broadcast does so once."""
        return self.bytes * prod(n for n, stride in zip(self.sizes, self.strides, strict=True) if stride)

    @property
    def width(self) -> float:
        return float(self.sizes[-1]) if self.sizes else 1.0

    @cached_property
    def is_part(self) -> bool:
        """Of a wider tensor, whose memory it lies in."""
        span = sum((n - 1) * stride for n, stride in zip(self.sizes, self.strides, strict=True)) + 1
        return self.elements > 0 and span > self.elements

    @property
    def transposed(self) -> bool:
        return len(self.sizes) > 1 and self.strides[-2] == 1 and self.strides[-1] != 1

    @property
    def scattered(self) -> bool:
        """Neither its rows nor its columns lie in one piece: cuBLAS is given a copy (ATen/native/cuda/Blas.cpp,
        prepare_batch_matrix_for_cublas)."""
        return len(self.sizes) > 2 and 1 not in self.strides[-2:]


@dataclass(frozen=True)
class Given:
    """One operation."""

    name: str
    given: Sequence[Any]
    made: Sequence[Any]

    @cached_property
    def inputs(self) -> list[Shape]:
        return [_shape(v) for v in self.given if _is_tensor(v)]

    @cached_property
    def outputs(self) -> list[Shape]:
        return [_shape(v) for v in self.made if _is_tensor(v)]

    @property
    def num_bytes(self) -> float:
        return sum(t.num_bytes for t in (*self.inputs, *self.outputs))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and value[0] == "t"


def _shape(value: Sequence[Any]) -> Shape:
    return Shape(tuple(value[1]), tuple(value[2]), float(value[3]))
