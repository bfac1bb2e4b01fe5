"""Policy: limits of the spec that a plan must keep. Checked before anything is written; exit 5 names the clause."""

from __future__ import annotations

from axoc.emit.placement import BASE_IMAGES, placement
from axoc.errors import Diagnostic, UserError
from axoc.ir.plan import Plan
from axoc.units import duration

SECONDS_PER_HOUR = 3600


class PolicyError(UserError):
    """The plan breaks a clause. Exit code 5."""

    exit_code = 5


def enforce(plan: Plan, file: str) -> None:
    """Raises PolicyError with every clause that the plan breaks, or that cannot be judged."""
    broken = [d for check in (_gpus, _cost, _hours, _images) for d in check(plan, file)]
    if broken:
        raise PolicyError(*broken)


def _gpus(plan: Plan, file: str) -> list[Diagnostic]:
    most, used = plan.request.policy.max_gpus, plan.chosen.candidate.world_size
    if most is None or used <= most:
        return []
    return [_broken(file, "max_gpus", str(most), f"the plan uses {used}", f"set distributed.gpu_count: {most}")]


def _cost(plan: Plan, file: str) -> list[Diagnostic]:
    most, cost = plan.request.policy.max_cost_usd, plan.chosen.estimate.time.cost_usd
    if most is None or (cost is not None and cost <= most):
        return []
    if cost is None:
        return [_broken(file, "max_cost_usd", f"${most:,.2f}", "the cost is not known", _KNOW)]
    return [_broken(file, "max_cost_usd", f"${most:,.2f}", f"the run would cost ${cost:,.2f}", _LESS)]


def _hours(plan: Plan, file: str) -> list[Diagnostic]:
    most, seconds = plan.request.policy.max_hours, plan.chosen.estimate.time.total_seconds
    if most is None or (seconds is not None and seconds <= most * SECONDS_PER_HOUR):
        return []
    if seconds is None:
        return [_broken(file, "max_hours", f"{most:g}", "how long the run takes is not known", _KNOW)]
    return [_broken(file, "max_hours", f"{most:g}", f"the run would take {duration(seconds)}", _LESS)]


def _images(plan: Plan, file: str) -> list[Diagnostic]:
    allowed, image = plan.request.policy.allowed_images, BASE_IMAGES.get(placement(plan).profile)
    if not allowed or image is None or image in allowed:
        return []
    return [_broken(file, "allowed_images", ", ".join(allowed), f"the Dockerfile builds on {image}", f"allow {image}")]


_KNOW = "run axoc lock, or set training.max_steps; give a price in an inventory file where none is known"
_LESS = "fewer epochs or steps, an adapter, or other hardware"


def _broken(file: str, clause: str, limit: str, found: str, fix: str) -> Diagnostic:
    return Diagnostic(message=f"policy.{clause} is {limit}, but {found}", file=file, fix=fix)
