"""What a plan is to be good at: ``time``, ``cost``, or what an hour of waiting is worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import Field

from axoc.spec.numbers import Number
from axoc.spec.parts import Either, Part
from axoc.spec.problems import wrong
from axoc.spec.words import Words

_HINTS: Final = {"speed": "time", "fastest": "time", "price": "cost", "money": "cost", "cheapest": "cost"}
_SHORT: Final = Words(("auto", "time", "cost"), _HINTS)


class Objective(Part):
    """A trade-off: the run's dollars, and so many more for each hour it takes."""

    usd_per_hour: Annotated[float, Number(open_minimum=True)] = Field(
        description="What an hour less is worth, in dollars."
    )


def _read(value: Any, long: Callable[[Any], Any]) -> Any:
    if not isinstance(value, dict):
        return _SHORT.read(value)
    if "usd_per_hour" not in value and not value.keys() - {"usd_per_hour"}:
        raise wrong(
            "is an empty mapping", expected="usd_per_hour: dollars", fix="write time, cost or {usd_per_hour: 50}"
        )
    return long(value)


OBJECTIVE: Final = Either(Objective, _read, (_SHORT.json(),))
"""``auto``, ``time``, ``cost``, or an Objective."""
