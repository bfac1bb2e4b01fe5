"""Values that nothing had to be decided for: what the user set, and the defaults of the rest, each with what it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from typing import Any, Final

from axoc.emit import text
from axoc.ir.plan import Plan
from axoc.ir.request import PlanRequest
from axoc.spec.fields import PARTS
from axoc.units import GIB

IN_THE_SPEC: Final = "set in the spec"


@dataclass(frozen=True, kw_only=True)
class Setting:
    field: str
    """Dotted spec name."""
    value: str
    source: str
    """``user`` | ``default``"""
    because: str
    """For a default, what the field is."""


def settings(plan: Plan) -> tuple[Setting, ...]:
    """Of every field of the spec but those that ``plan.decisions`` tells; what the user set first."""
    decided = {d.field for d in plan.decisions}
    rows = [s for prefix in PARTS for s in _of_part(plan.request, prefix, decided)]
    return tuple(sorted(rows, key=lambda s: s.source == "default"))


def _of_part(request: PlanRequest, prefix: str, decided: set[str]) -> Iterator[Setting]:
    for owner, shown in _owners(request, prefix):
        for name, field in PARTS[prefix].model_fields.items():
            dotted, value = _join(prefix, name), _value(owner, name)
            if dotted in decided or name == "version" or _is_told_below(dotted, value) or value is _ABSENT:
                continue
            user = dotted in request.explicit
            yield Setting(
                field=_join(shown, name),
                value=text.value("none" if value is None and dotted == "adapter" else value),
                source="user" if user else "default",
                because=IN_THE_SPEC if user else str(field.description),
            )


def _owners(request: PlanRequest, prefix: str) -> Iterator[tuple[Any, str]]:
    """The parts of the request that a prefix names, and how each is called; none where the part does not apply."""
    if prefix == "dataset":
        several = len(request.datasets) > 1
        yield from ((d, f"dataset[{i}]" if several else "dataset") for i, d in enumerate(request.datasets))
        return
    owner: Any = request
    for name in prefix.split(".") if prefix else ():
        owner = getattr(owner, name, None)
    if is_dataclass(owner):
        yield owner, prefix


_ABSENT: Final = object()


def _value(owner: Any, name: str) -> Any:
    if name == "memory_budget_per_gpu_gb":
        num_bytes = owner.memory_budget_per_gpu_bytes
        return None if num_bytes is None else num_bytes / GIB
    return getattr(owner, name, _ABSENT)


def _is_told_below(dotted: str, value: Any) -> bool:
    """A mapping that has rows of its own."""
    return dotted in PARTS and (is_dataclass(value) or isinstance(value, tuple) or dotted == "dataset")


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
