"""A meter of device seconds and launches, which a stretch of operations is run past."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from axoc.cost.columns import Floats
from axoc.cost.kernels import Kernels
from axoc.cost.operations import Operation
from axoc.cost.scenario import Scenario
from axoc.cost.tape import Size

PRODUCTS: Final = "matrix products"
ATTENTION: Final = "attention"
MEMORY_BOUND: Final = "memory-bound kernels"
CASTS: Final = "weight casts and gradient sums"
LOSS: Final = "loss"
DEQUANTIZATION: Final = "dequantization"
FLOAT8: Final = "casts to float8"
PARTS: Final = (PRODUCTS, ATTENTION, MEMORY_BOUND, CASTS, LOSS, DEQUANTIZATION, FLOAT8)


@dataclass(eq=False)
class Meter:
    """Device seconds by part, and launches, of a stretch of operations."""

    scenario: Scenario
    kernels: Kernels
    rows: int
    """Shapes that are counted at once."""
    row_tokens: Size = 0.0
    """Of the rows that attention is computed over."""
    seconds: dict[str, Floats] = field(default_factory=dict)
    launches: Size = 0.0
    triton: Size = 0.0
    """Liger's kernels, launched from Python."""
    dequantized: float = 0.0
    """Products with a bitsandbytes weight."""
    adapted: float = 0.0
    """Forwards of layers with an adapter, which PEFT takes through Python."""

    def add(self, part: str, seconds: Floats, launches: float = 1.0) -> None:
        before = self.seconds.get(part, np.zeros(self.rows))
        self.seconds[part] = before + seconds * launches
        self.launches = self.launches + launches

    def matmul(self, layout: str, m: Size, n: Size, k: Size, bytes_: float) -> None:
        self.add(PRODUCTS, self.kernels.matmul(layout, m, n, k, bytes_))

    def pointwise(self, kernel: str, elements: Size, bytes_: float, width: Size = 0.0, times: float = 1.0) -> None:
        self.add(MEMORY_BOUND, self.kernels.pointwise(kernel, elements, bytes_, width), times)

    def liger(
        self, kernel: str, elements: Size, width: Size, bytes_: float, *, passes: float, backward: bool = False
    ) -> None:
        """A Triton kernel along rows of ``width``, whose launch is told apart."""
        seconds = self.kernels.liger(kernel, elements / width, width, bytes_, passes=passes, backward=backward)
        self.add(MEMORY_BOUND, seconds)
        self.launches, self.triton = self.launches - 1.0, self.triton + 1.0

    def moved(self, num_bytes: Size, launches: float = 1.0, part: str = MEMORY_BOUND) -> None:
        """A kernel that only its bytes are known of."""
        self.add(part, self.kernels.moved(num_bytes / launches), launches)

    def tiny(self, launches: float) -> None:
        """On a number a row, or one alone."""
        if launches:
            self.add(MEMORY_BOUND, self.kernels.moved(np.ones(self.rows)), launches)

    def cast(self, elements: Size, bytes_: float, part: str = MEMORY_BOUND) -> None:
        """``bytes_``: of an element of the input."""
        self.add(part, self.kernels.pointwise("cast", elements, bytes_))

    @property
    def total(self) -> Floats:
        return sum(self.seconds.values(), np.zeros(self.rows))


Kind = Callable[[Operation, Meter], None]
