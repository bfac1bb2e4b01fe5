"""Which objectives there are. Built-ins are a static table: a bundle carries sources, not an installed distribution.
Plugins come from entry points, and one of the same name overrides the built-in.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.objectives.base import Objective

GROUP: Final = "axoc_runtime.objectives"
_PACKAGE: Final = "axoc_runtime.objectives"

BUILTIN: Final[dict[str, str]] = {
    "sft": f"{_PACKAGE}.language:Sft",
    "pretrain": f"{_PACKAGE}.language:Pretrain",
    "dpo": f"{_PACKAGE}.paired:Dpo",
    "ipo": f"{_PACKAGE}.paired:Ipo",
    "orpo": f"{_PACKAGE}.contrasted:Orpo",
    "simpo": f"{_PACKAGE}.contrasted:Simpo",
    "kto": f"{_PACKAGE}.rated:Kto",
    "reward": f"{_PACKAGE}.reward:Reward",
    "grpo": f"{_PACKAGE}.grpo:Grpo",
}
"""Objective name -> ``module:Class``."""


SEEING: Final = f"{_PACKAGE}.vision:Seeing"
"""What `sft` is where the rows are about images."""


def objective_of(job: Job) -> Objective:
    return _builtin(SEEING) if job.model.vision else named(job.training.objective)


@cache
def named(name: str) -> Objective:
    """Raises RuntimeFailure where there is none of that name, or a plugin is broken."""
    found = {p.name: p for p in entry_points(group=GROUP) if BUILTIN.get(p.name) != p.value}
    if name in found:
        return _made(name, found[name])
    if name not in BUILTIN:
        known = ", ".join(sorted({*BUILTIN, *found}))
        raise RuntimeFailure(f"objective {name} is not in this runtime", EXIT_INPUTS, f"it has {known}")
    return _builtin(BUILTIN[name])


@cache
def _builtin(target: str) -> Objective:
    module, _, attribute = target.partition(":")
    made: Objective = getattr(import_module(module), attribute)()
    return made


def _made(name: str, point: Any) -> Objective:
    """A broken plugin is named, not passed over."""
    try:
        made = point.load()()
    except Exception as error:  # a plugin may fail in any way
        message = f"the objective plugin {name!r} ({point.value}) cannot be loaded: {type(error).__name__}: {error}"
        raise RuntimeFailure(message, EXIT_INPUTS, "repair or remove the plugin") from error
    if not isinstance(made, Objective):
        message = f"the objective plugin {name!r} ({point.value}) is no Objective"
        raise RuntimeFailure(message, EXIT_INPUTS, "subclass axoc_runtime.objectives.base.Objective")
    return made
