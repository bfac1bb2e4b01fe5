"""Seconds between measured shapes: what is interpolated is how far each fell behind an ideal machine, not seconds.

An ideal is a plain count, such as FLOPs over the highest rate plus bytes over the bandwidth; the ratio of measured to
ideal varies slowly with shape where seconds vary by orders of magnitude. Between shapes, inverse distance in logarithms
(Shepard 1968, https://doi.org/10.1145/800186.810616), so that a measured shape gives its own seconds back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from axoc.cost.columns import Floats

NEAREST: Final = 8
POWER: Final = 4.0
SAME: Final = 1e-6
"""Distance in logarithms below which two shapes are one."""


@dataclass(frozen=True, eq=False)
class Surface:
    """Points in logarithms of sizes (one row a point), and the logarithm of measured over ideal seconds at each."""

    points: Floats
    ratios: Floats

    @classmethod
    def over(cls, sizes: Floats, seconds: Floats, ideal: Floats) -> Surface:
        return cls(np.log(sizes), np.log(seconds / ideal))

    def seconds(self, sizes: Floats, ideal: Floats) -> Floats:
        """``sizes``: one row a shape."""
        distances = np.sqrt(((np.log(sizes)[:, None, :] - self.points[None, :, :]) ** 2).sum(axis=2))
        count = min(NEAREST, len(self.points))
        nearest = np.argpartition(distances, count - 1, axis=1)[:, :count]
        found = np.take_along_axis(distances, nearest, axis=1)
        weights = 1.0 / np.maximum(found, SAME) ** POWER
        ratio = (weights * self.ratios[nearest]).sum(axis=1) / weights.sum(axis=1)
        return cast(Floats, ideal * np.exp(ratio))


@dataclass(frozen=True, eq=False)
class Curve:
    """Seconds by one size, straight between the measured ones in logarithms, in proportion beyond the largest."""

    sizes: Floats
    seconds: Floats

    @classmethod
    def of(cls, sizes: list[float], seconds: list[float]) -> Curve:
        order = np.argsort(sizes)
        return cls(np.asarray(sizes, dtype=np.float64)[order], np.asarray(seconds, dtype=np.float64)[order])

    def at(self, size: Floats) -> Floats:
        inside = np.exp(np.interp(np.log(np.maximum(size, 1.0)), np.log(self.sizes), np.log(self.seconds)))
        return cast(Floats, inside * np.maximum(1.0, size / self.sizes[-1]))
