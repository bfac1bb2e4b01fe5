"""From two shallow runs to the full depth: each phase's peak grows by the same bytes with every block added."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from axoc_runtime.job import Job
from axoc_runtime.trace.allocator import reserved_bytes
from axoc_runtime.trace.device import device_named
from axoc_runtime.trace.model import depth_of, language_part, with_depth
from axoc_runtime.trace.step import Traced, trace_depth

FULL_RUN_SECONDS: Final = 30.0
"""A run of the full depth that is expected to take no longer is made, for the exact order of allocations."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Bytes of the whole model on one device."""

    peak_allocated_bytes: int
    peak_reserved_bytes: int
    phases: dict[str, int]
    seconds: float
    layers_run: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "peak_allocated_bytes": self.peak_allocated_bytes,
            "peak_reserved_bytes": self.peak_reserved_bytes,
            "phases": self.phases,
            "seconds": round(self.seconds, 3),
            "layers_run": list(self.layers_run),
        }


def trace(
    job: Job,
    config: dict[str, Any],
    *,
    input_gradients: bool = False,
    padded: bool = False,
    full_run_seconds: float = FULL_RUN_SECONDS,
) -> Result:
    """Peak memory of a job on one device. Raises RuntimeFailure where it cannot be traced.

    ``input_gradients`` as by enable_input_require_grads, which axoc's runtime has no need of. ``padded``: some rows of
    each batch are shorter than its longest.
    """
    began = time.perf_counter()
    device = device_named(job.expect.accelerator)
    layers, period = depth_of(config), period_of(config)
    depths = shallow_depths(layers, period, lead_of(config))

    def at(depth: int) -> Traced:
        return trace_depth(
            job, with_depth(config, depth), device, period, input_gradients=input_gradients, padded=padded
        )

    if depths is None or job.training.gradient_checkpointing == "selective":
        run = at(layers)
        return result(run.phases, reserved_bytes(run.events), began, (layers,))
    few = at(depths[0])
    halfway = time.perf_counter()
    more = at(depths[1])
    each = (time.perf_counter() - halfway) / depths[1]
    phases = extrapolate(few, more, layers)
    if each * layers > full_run_seconds:
        reserved = line(few.layers, reserved_bytes(few.events), more.layers, reserved_bytes(more.events), layers)
        return result(phases, max(reserved, max(phases.values())), began, depths)
    full = at(layers)
    return result(full.phases, reserved_bytes(full.events), began, (layers,))


def result(phases: dict[str, int], reserved: int, began: float, layers: tuple[int, ...]) -> Result:
    return Result(
        peak_allocated_bytes=max(phases.values()),
        peak_reserved_bytes=reserved,
        phases=phases,
        seconds=time.perf_counter() - began,
        layers_run=layers,
    )


def shallow_depths(layers: int, period: int, lead: int) -> tuple[int, int] | None:
    """Two depths a whole number of periods away from the full one, or None where that saves nothing.

    Either holds at least three periods: the two ends of the backward, and something between them.
    """
    first = lead + 3 * period + (layers - lead) % period
    second = first + 2 * period
    return (first, second) if second < layers else None


def extrapolate(few: Traced, more: Traced, layers: int) -> dict[str, int]:
    return {p: line(few.layers, few.phases[p], more.layers, more.phases[p], layers) for p in few.phases}


def line(x1: int, y1: int, x2: int, y2: int, x: int) -> int:
    """The straight line through two points, at ``x``."""
    return round(y1 + (y2 - y1) * (x - x1) / (x2 - x1))


def period_of(config: dict[str, Any]) -> int:
    """After how many blocks the pattern of kinds repeats, e.g. 2 where every second block has a sliding window."""
    part = language_part(config)
    kinds = kinds_of(part)
    lead = lead_of(config)
    found = next(
        (p for p in range(1, len(kinds)) if all(a == b for a, b in zip(kinds[lead:], kinds[lead + p :], strict=False))),
        1,
    )
    return max(found, int(part.get("decoder_sparse_step") or 1))


def kinds_of(part: dict[str, Any]) -> list[Any]:
    """The kind of each block as transformers reads it from the config."""
    from axoc_runtime.trace.model import library_config

    return list(getattr(library_config(part), "layer_types", None) or [])


def lead_of(config: dict[str, Any]) -> int:
    """Blocks before the pattern begins: DeepSeek's dense ones."""
    return int(language_part(config).get("first_k_dense_replace") or 0)
