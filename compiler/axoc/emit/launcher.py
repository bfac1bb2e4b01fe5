"""config/launch.env: the figures of the plan that launch.sh needs. All texts in it are quoted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from shlex import quote

from axoc.emit.placement import placement
from axoc.emit.targets.registry import target_named
from axoc.ir.plan import Plan


@dataclass(frozen=True, kw_only=True)
class LaunchEnvironment:
    PLAN_PROFILE: str
    """``cpu`` | ``cuda`` | ``rocm``: which lock requirements.lock is."""
    PLAN_DEVICE: str
    PLAN_NODES: int
    PLAN_PROCESSES_PER_NODE: int
    PLAN_UPLOADS: int
    """1 where the spec has ``upload_to``."""
    PLAN_TARGET: str
    target: Mapping[str, str | int]
    """Of the target's own shell."""

    def render(self) -> str:
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "target"}
        values = ((name, quote(str(value))) for name, value in {**own, **self.target}.items())
        return "# Read by launch.sh.\n" + "".join(f"{name}={value}\n" for name, value in values)


def launch_environment(plan: Plan) -> LaunchEnvironment:
    place = placement(plan)
    return LaunchEnvironment(
        PLAN_PROFILE=place.profile,
        PLAN_DEVICE=place.device,
        PLAN_NODES=place.nodes,
        PLAN_PROCESSES_PER_NODE=place.processes_per_node,
        PLAN_UPLOADS=int(plan.request.upload_to is not None),
        PLAN_TARGET=plan.request.target.type,
        target=target_named(plan.request.target.type).figures(plan),
    )
