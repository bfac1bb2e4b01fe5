"""Out of memory: the plan's ledger against what was measured at that moment, and the replan that fits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from axoc_runtime.errors import EXIT_OUT_OF_MEMORY, RuntimeFailure
from axoc_runtime.failure.activity import NOW
from axoc_runtime.failure.plan import ledger, memory, plan
from axoc_runtime.job import Job

GIB: Final = 1 << 30
UNITS: Final = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
FOREIGN_BYTES: Final = 1 << 30
"""What others hold of a device is named from here on; below it is the driver's own."""
MEMORY_SAFETY: Final = 0.03
"""policy.memory_safety's default: the planner keeps this share of the budget free (ir/request.py)."""
KNOBS: Final = ("strategy", "micro_batch_size", "gradient_checkpointing", "attention", "kernels", "offload")


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The device of this rank when the allocation failed, in bytes. On a CPU the device is the host."""

    asked: int
    """By the allocation that failed; 0 where the error does not say."""
    allocated: int
    reserved: int
    used: int
    """Of the device, by all processes on it."""
    total: int


def explain(job: Job, error: BaseException) -> RuntimeFailure:
    moment = measure(job, error)
    message = "\n".join([_headline(job, moment), *_table(job, moment)])
    return RuntimeFailure(message, EXIT_OUT_OF_MEMORY, replan(job, moment))


def asked_bytes(error: BaseException) -> int:
    """As torch's allocators word it (c10/cuda/CUDACachingAllocator.cpp, c10/core/impl/alloc_cpu.cpp)."""
    found = re.search(r"[Tt]ried to allocate ([\d.]+) (bytes|[KMGT]iB)", str(error))
    return round(float(found[1]) * UNITS[found[2]]) if found else 0


def measure(job: Job, error: BaseException) -> Moment:
    asked = asked_bytes(error)
    if job.distributed.device == "cpu":
        return _host(job, asked)
    import torch

    free, total = torch.cuda.mem_get_info()
    return Moment(
        asked=asked,
        allocated=torch.cuda.memory_allocated(),
        reserved=torch.cuda.memory_reserved(),
        used=total - free,
        total=total,
    )


def _host(job: Job, asked: int) -> Moment:
    """Each process is a device of its own with its share of what is available."""
    from axoc_runtime.preflight import host_memory_available_bytes

    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * 4096
    room = host_memory_available_bytes() or 0
    total = resident + room // max(1, job.distributed.processes_per_node)
    return Moment(asked=asked, allocated=resident, reserved=resident, used=resident, total=total)


def _headline(job: Job, m: Moment) -> str:
    where = "host memory" if job.distributed.device == "cpu" else "device memory"
    asked = f": {m.asked / GIB:.2f} GiB more were asked for" if m.asked else ""
    predicted = job.prediction.device_used_bytes
    planned = f", {predicted / GIB:.2f} planned at the peak" if predicted else ""
    return f"out of {where} {NOW}{asked}; {m.used / GIB:.2f} of {m.total / GIB:.2f} GiB are used{planned}"


def _table(job: Job, m: Moment) -> list[str]:
    """The plan's items, then its sums beside the measured ones."""
    p = job.prediction
    lines = [f"    {i['item']:<32}{i['bytes'] / GIB:>9.2f} GiB planned" for i in ledger(job)]
    sums = (
        ("allocated", p.peak_allocated_bytes, m.allocated),
        ("reserved", p.peak_reserved_bytes, m.reserved),
        ("used on the device", p.device_used_bytes, m.used),
    )
    return lines + [f"    {n:<32}{a / GIB:>9.2f} GiB planned{b / GIB:>9.2f} GiB measured now" for n, a, b in sums]


def foreign_bytes(job: Job, m: Moment) -> int:
    """Held by other processes: what is used beyond this process's reserve and its context, as planned."""
    if job.distributed.device == "cpu":
        return 0
    context = max(0, job.prediction.device_used_bytes - job.prediction.peak_reserved_bytes)
    held = m.used - m.reserved - context
    return held if held >= FOREIGN_BYTES else 0


def budget_bytes(job: Job, m: Moment) -> int:
    """What to plan with, so that a plan that is off by as much as this one was fits what there is for this process.

    The run needed at least what it held and asked for: over the prediction that is the factor by which the next
    prediction must be smaller. It is a lower bound, for the peak was not reached.
    """
    predicted = job.prediction.device_used_bytes
    room = m.total - foreign_bytes(job, m)
    needed = m.used - foreign_bytes(job, m) + m.asked
    return int(room * min(1.0, predicted / needed)) if predicted and needed else room


def replan(job: Job, m: Moment) -> str:
    """The exact change. Where others hold memory, ending them may do."""
    budget = budget_bytes(job, m)
    others = foreign_bytes(job, m)
    first = f"other processes hold {others / GIB:.1f} GiB of this device: end them, or " if others else ""
    line = f"{first}set distributed.memory_budget_per_gpu_gb: {budget / GIB * 0.999:.2f} in the spec"
    return f"{line} and plan again (axoc plan SPEC --out BUNDLE){_next_candidate(job, budget)}"


def _next_candidate(job: Job, budget: int) -> str:
    """The fastest of the plan's own candidates within that budget, by what differs from what ran."""
    whole = plan(job)
    ran = whole.get("plan", {})
    for candidate in whole.get("candidates", []):
        used = memory(candidate).get("device_used_bytes")
        if used is not None and used <= budget * (1 - MEMORY_SAFETY):
            changed = _changes(ran, candidate.get("plan", {}))
            return f"; of this plan's candidates that leaves {changed} at {used / GIB:.2f} GiB" if changed else ""
    return ""


def _changes(ran: dict[str, Any], other: dict[str, Any]) -> str:
    return ", ".join(f"{k}: {other[k]}" for k in KNOBS if k in other and other[k] != ran.get(k))
