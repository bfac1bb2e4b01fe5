"""From two shallow runs to the full depth: each phase's peak grows by the same bytes with every block added."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Final

from axoc_runtime.job import Job
from axoc_runtime.trace.allocator import reserved_bytes
from axoc_runtime.trace.device import STAND_IN, device_named, known
from axoc_runtime.trace.model import depth_of, language_part, with_depth
from axoc_runtime.trace.step import Traced, trace_depth
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
    notes: tuple[str, ...] = ()
    """What the reader should know before trusting the figures."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "peak_allocated_bytes": self.peak_allocated_bytes,
            "peak_reserved_bytes": self.peak_reserved_bytes,
            "phases": self.phases,
            "seconds": round(self.seconds, 3),
            "layers_run": list(self.layers_run),
            "notes": list(self.notes),
        }


def trace(
    job: Job,
    config: dict[str, Any],
    *,
    input_gradients: bool = False,
    padded: bool = False,
    full_run_seconds: float = FULL_RUN_SECONDS,
) -> Result:
    """Peak memory of a job on the fullest device. Raises RuntimeFailure where it cannot be traced.

    ``input_gradients`` as by enable_input_require_grads, which axoc's runtime has no need of. ``padded``: some rows of
    each batch are shorter than its longest.
    """
    ranks = RANKS.get(job.distributed.strategy, ("fullest",))
    return most([_traced(job, config, rank, input_gradients, padded, full_run_seconds) for rank in ranks])


def most(ranks: list[Result]) -> Result:
    """Of several ranks."""
    return replace(
        ranks[0],
        peak_allocated_bytes=max(r.peak_allocated_bytes for r in ranks),
        peak_reserved_bytes=max(r.peak_reserved_bytes for r in ranks),
        phases={name: max(r.phases[name] for r in ranks) for name in ranks[0].phases},
        seconds=sum(r.seconds for r in ranks),
    )


def _traced(
    job: Job, config: dict[str, Any], rank: Rank, input_gradients: bool, padded: bool, full_run_seconds: float
) -> Result:
    began = time.perf_counter()
    notes = assumptions(job)
    if job.model.quantization is not None:
        job = replace(job, model=replace(job.model, compile=False))
    device = device_named(job.expect.accelerator)
    layers, period = depth_of(config), period_of(config)
    depths = shallow_depths(layers, period, lead_of(config), saturated(job, config))

    def at(depth: int) -> Traced:
        shallow = with_depth(config, depth)
        return trace_depth(job, shallow, device, period, rank=rank, input_gradients=input_gradients, padded=padded)

    def result(phases: dict[str, int], reserved: int, run: tuple[int, ...], *more: str) -> Result:
        return Result(
            peak_allocated_bytes=max(phases.values()),
            peak_reserved_bytes=max(reserved, max(phases.values())),
            phases=phases,
            seconds=time.perf_counter() - began,
            layers_run=run,
            notes=(*notes, *more),
        )

    if depths is None or job.training.gradient_checkpointing == "selective":
        run = at(layers)
        return result(run.phases, reserved_bytes(run.events), (layers,))
    few = at(depths[0])
    if len(few.events) * layers / few.layers * SECONDS_PER_EVENT > full_run_seconds:
        more = at(depths[1])
        reserved = line(few.layers, reserved_bytes(few.events), more.layers, reserved_bytes(more.events), layers)
        return result(extrapolate(few, more, layers), reserved, depths, EXTRAPOLATED)
    full = at(layers)
    return result(full.phases, reserved_bytes(full.events), (layers,))


def assumptions(job: Job) -> tuple[str, ...]:
    name, found = job.expect.accelerator, []
    if not known(name):
        found.append(
            f"the trace does not know {name}: kernels and library workspaces are those of an {STAND_IN.upper()}"
        )
    if job.model.compile and job.model.quantization is not None:
        found.append(
            "blocks of quantized weights are traced as they are, not compiled: what a compiler fuses it does not save"
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
