"""Margin: how far a plan is from not fitting, in the terms of the settings that users turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class KnobPoint:
    value: int
    device_used_bytes: int


@dataclass(frozen=True, kw_only=True)
class KnobMargin:
    """One setting moved with all else held: strategy, micro-batch, checkpointing, offload."""

    field: str
    """Dotted spec name."""
    label: str
    """In words, e.g. ``sequence length``."""
    value: int
    """As planned."""
    fits_to: int
    """The last value, going from the planned one, with which the plan still fits."""
    breaks_at: int | None
    """The first that does not; None where it fits as far as the setting makes sense."""
    curve: tuple[KnobPoint, ...] = ()
    """The plan at some values in ascending order, the planned one among them; of the sequence length alone."""

    @property
    def falls(self) -> bool:
        """True where less is harder, as with accelerators that share a model."""
        return (self.fits_to if self.breaks_at is None else self.breaks_at) < self.value

    @property
    def factor(self) -> float | None:
        """From the planned value to the first that does not fit, as a factor above 1; None where none breaks."""
        if self.breaks_at is None:
            return None
        near, far = sorted((self.value, self.breaks_at))
        return far / near


@dataclass(frozen=True, kw_only=True)
class Margin:
    free_bytes: int
    """Of the device, beyond the prediction and the share that is kept free."""
    kept_free: float
    """policy.memory_safety: the share of the limit that is kept free on top."""
    host_free_bytes: int | None
    """Of a node's host memory; None where the inventory does not say how much there is."""
    disk_free_bytes: int | None
    knobs: tuple[KnobMargin, ...]

    @property
    def first_to_break(self) -> KnobMargin | None:
        """The one with the smallest factor; None where no setting alone breaks the plan."""
        return first_to_break(self.knobs)


def first_to_break(knobs: Sequence[KnobMargin]) -> KnobMargin | None:
    breaking = [(k.factor, i) for i, k in enumerate(knobs) if k.factor is not None]
    return knobs[min(breaking)[1]] if breaking else None
