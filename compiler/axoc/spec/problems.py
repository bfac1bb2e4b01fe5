"""Problems: what is wrong with a value, before it is known where in the file the value stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic_core import PydanticCustomError

Path = tuple[str | int, ...]
"""Keys and list indices from the top of the document."""

WRONG = "axoc"
"""The type of errors that ``wrong`` makes, as pydantic hands them back."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """1-based."""

    line: int
    column: int


@dataclass(frozen=True, kw_only=True)
class Problem:
    path: Path
    message: str
    """Said of the value at ``path``, e.g. ``is 'zero4'``; or a whole sentence where ``whole`` is set."""
    expected: str | None = None
    fix: str | None = None
    whole: bool = False
    at_key: bool = False
    """Show the key's place rather than the value's."""
    place: Place | None = None
    """Where it is known better than by ``path``."""


def wrong(
    message: str, *, expected: str | None = None, fix: str | None = None, key: str | None = None
) -> PydanticCustomError:
    """For validators to raise; ``key``: the key of a mapping that is at fault.

    Everything travels in the context, as pydantic would fill in braces of a template.
    """
    return PydanticCustomError(WRONG, "wrong", {"message": message, "expected": expected, "fix": fix, "key": key})


def listed(names: Sequence[str], last: str = "or") -> str:
    """``a, b or c``"""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"
