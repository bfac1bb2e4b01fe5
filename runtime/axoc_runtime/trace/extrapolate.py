"""From two shallow runs to the full depth: each phase's peak grows by the same bytes with every block added."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from axoc_runtime.job import Job
from axoc_runtime.trace.allocator import reserved_bytes
from axoc_runtime.trace.aside import can_fork
from axoc_runtime.trace.compiled import forget_compiled
from axoc_runtime.trace.device import STAND_IN, device_named, known
from axoc_runtime.trace.liveness import Event
from axoc_runtime.trace.model import depth_of, four_bits_compiled, language_part, with_depth
from axoc_runtime.trace.step import (
    EVALUATED,
    MICRO_BATCHES,
    STEPS,
    Run,
    Traced,
    Widths,
    evaluated_by,
    trace_depth,
    young_cycles,
)
from axoc_runtime.trace.strategy import Rank
from axoc_runtime.trace.zero import zero_settings

FULL_RUN_SECONDS: Final = 12.0
"""A run of the full depth that is expected to take no longer is made, for the exact order of allocations."""
SECONDS_PER_EVENT: Final = 0.0001
"""Of one core: 66,347 events took 6.5 s. A figure, not a clock, so that the same job is traced alike on any machine."""
RANKS: Final[dict[str, tuple[Rank, ...]]] = {"zero2": ("last", "fullest")}
"""Where ranks differ in more than what they hold to the end."""
EXTRAPOLATED: Final = (
    "reserved memory was not followed at full depth, but extrapolated: it may be several percent too low"
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """Bytes of the whole model on one device."""

    peak_allocated_bytes: int
    peak_reserved_bytes: int
    phases: dict[str, int]
    seconds: float
    layers_run: tuple[int, ...]
    launches: tuple[dict[str, Any], ...] = ()
    """Of each depth that was run (launches.py)."""
    notes: tuple[str, ...] = ()
    """What the reader should know before trusting the figures."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "peak_allocated_bytes": self.peak_allocated_bytes,
            "peak_reserved_bytes": self.peak_reserved_bytes,
            "phases": self.phases,
            "seconds": round(self.seconds, 3),
            "layers_run": list(self.layers_run),
            "launches": list(self.launches),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is run of a job, but for its rank and depth."""

    input_gradients: bool = False
    """As by enable_input_require_grads, which axoc's runtime has no need of."""
    padded: bool = False
    """Some rows of each batch are shorter than its longest."""
    widths: Widths | None = None
    """How long the longest row is, of each micro-batch of each step, all of which are run at the model's full depth. Without them
    all are as long as a row may be."""
    device_bytes: int | None = None
    """What the allocator can have of the device: before it would have more, it gives free memory back."""
    full_run_seconds: float = FULL_RUN_SECONDS
    loading: Callable[[Traced], tuple[list[Event], int]] | None = None
    """A run's events where its weights came to the device in another way than by the bundle's runtime, and from which on peaks count."""


def trace(job: Job, config: dict[str, Any], **asked: Any) -> Result:
    """Peak memory of a job on the fullest device; ``asked``: Asked's. Raises RuntimeFailure where it cannot be traced."""
    forget_compiled(job)
    ranks = RANKS.get(job.distributed.strategy, ("fullest",))
    return most([_traced(job, config, rank, Asked(**asked)) for rank in ranks])


def most(ranks: list[Result]) -> Result:
    """Of several ranks."""
    return replace(
        ranks[0],
        peak_allocated_bytes=max(r.peak_allocated_bytes for r in ranks),
        peak_reserved_bytes=max(r.peak_reserved_bytes for r in ranks),
        phases={name: max(r.phases[name] for r in ranks) for name in ranks[0].phases},
        seconds=sum(r.seconds for r in ranks),
    )


def _traced(job: Job, config: dict[str, Any], rank: Rank, asked: Asked) -> Result:
    began = time.perf_counter()
    notes = assumptions(job)
    if job.model.quantization is not None and not four_bits_compiled(job):
        job = replace(job, model=replace(job.model, compile=False))
    device = device_named(job.expect.accelerator)
    layers, period = depth_of(config), period_of(config)
    depths = shallow_depths(layers, period, lead_of(config), saturated(job, config))

    def at(depth: int, run: Run = "shallow", *, evaluates: bool = True) -> Traced:
        shallow = with_depth(config, depth)
        options: dict[str, Any] = {name: getattr(asked, name) for name in ("input_gradients", "padded", "widths")}
        return trace_depth(job, shallow, device, period, rank=rank, run=run, evaluates=evaluates, **options)

    def reserved(run: Traced) -> int:
        events, since = (run.events, 0) if asked.loading is None else asked.loading(run)
        return reserved_bytes(events, limit=asked.device_bytes, since=since)

    def result(phases: dict[str, int], most: int, run: tuple[Traced, ...], *more: str) -> Result:
        return Result(
            peak_allocated_bytes=max(phases.values()),
            peak_reserved_bytes=max(most, max(phases.values())),
            phases=phases,
            seconds=time.perf_counter() - began,
            layers_run=tuple(r.layers for r in run),
            launches=tuple(r.launches for r in run),
            notes=(*notes, *more),
        )

    def deepest(run: Run) -> Result:
        with young_cycles():
            full = at(layers, run)
            return result(full.phases, reserved(full), (full,))

    if asked.widths is not None:
        steps = at(layers)
        return result(steps.phases, reserved(steps), (steps,))
    if depths is None or job.training.gradient_checkpointing == "selective":
        return deepest("only")
    if job.model.compile and evaluated_by(job) and can_fork():
        steps = at(depths[0], evaluates=False)
        events = len(steps.events) + most_of_an_evaluation(job, steps)
        if expected_seconds(events, steps, layers) <= asked.full_run_seconds:
            return deepest("whole")
    few = at(depths[0])
    if expected_seconds(len(few.events), few, layers) > asked.full_run_seconds:
        more = at(depths[1])
        longer = line(few.layers, reserved(few), more.layers, reserved(more), layers)
        return result(extrapolate(few, more, layers), longer, (few, more), EXTRAPOLATED)
    return deepest("whole")


def expected_seconds(events: int, shallow: Traced, layers: int) -> float:
    """Of a run as deep as the model, by ``events`` of a shallow one."""
    return events * layers / shallow.layers * SECONDS_PER_EVENT


def most_of_an_evaluation(job: Job, steps: Traced) -> int:
    """Events that it may have at most: two forward passes that keep nothing, beside passes that were run. Where blocks are compiled its
    graphs are others, and a child's to make while the full depth is run, if only that is sure to be run."""
    passes = STEPS * min(job.training.gradient_accumulation_steps, MICRO_BATCHES)
    made = sum(1 for e in steps.events if e.phase == "forward" and e.num_bytes > 0)
    return math.ceil(1.1 * EVALUATED * 2 * made / passes)


def assumptions(job: Job) -> tuple[str, ...]:
    name, found = job.expect.accelerator, []
    if not known(name):
        found.append(
            f"the trace does not know {name}: kernels and library workspaces are those of an {STAND_IN.upper()}"
        )
    if job.model.compile and job.model.quantization is not None and not four_bits_compiled(job):
        found.append(
            "blocks of int8 weights are traced as they are, not compiled: what a compiler fuses it does not save"
        )
    if job.distributed.mixed_precision == "fp8":
        found.append(
            "products in float8 are traced in bfloat16, with inputs kept that compiled float8 makes anew: expect less"
        )
    return tuple(found)


def saturated(job: Job, config: dict[str, Any]) -> int:
    """Blocks from which on each more costs the same. ZeRO-3 keeps gathered what it will need again soon: a number of
    elements, and until blocks fill it each costs more than later ones do."""
    if job.distributed.strategy != "zero3" or job.distributed.data_parallel == 1:
        return 0
    from axoc_runtime.trace.model import block_parameters

    part = language_part(config)
    settings = zero_settings(job, int(part.get("hidden_size") or part.get("n_embd") or 0))
    return -(-max(settings.max_reuse, settings.prefetch) // max(1, block_parameters(config)))


def shallow_depths(layers: int, period: int, lead: int, least: int = 0) -> tuple[int, int] | None:
    """Two depths a whole number of periods away from the full one, or None where that saves nothing.

    Either holds at least ``least`` blocks and three periods: the two ends of the backward, and something between them.
    """
    periods = 3 + -(-least // period)
    first = lead + periods * period + (layers - lead) % period
    second = first + 2 * period
    return (first, second) if second < layers else None


def extrapolate(few: Traced, more: Traced, layers: int) -> dict[str, int]:
    return {p: line(few.layers, few.phases[p], more.layers, more.phases[p], layers) for p in few.phases}


def line(x1: int, y1: int, x2: int, y2: int, x: int) -> int:
    """The straight line through two points, at ``x``."""
    return round(y1 + (y2 - y1) * (x - x1) / (x2 - x1))


def period_of(config: dict[str, Any]) -> int:
    """After how many blocks the pattern of kinds repeats, e.g. 2 where every second block has a sliding window. All of them where it
    does not."""
    part = language_part(config)
    kinds = kinds_of(part)
    lead = lead_of(config)
    repeats = (
        p for p in range(1, len(kinds)) if all(a == b for a, b in zip(kinds[lead:], kinds[lead + p :], strict=False))
    )
    found = next(repeats, max(1, len(kinds)))
    return max(found, int(part.get("decoder_sparse_step") or 1))


def kinds_of(part: dict[str, Any]) -> list[Any]:
    """The kind of each block as transformers reads it from the config."""
    from axoc_runtime.trace.model import library_config

    return list(getattr(library_config(part), "layer_types", None) or [])


def lead_of(config: dict[str, Any]) -> int:
    """Blocks before the pattern begins: DeepSeek's dense ones."""
    return int(language_part(config).get("first_k_dense_replace") or 0)
