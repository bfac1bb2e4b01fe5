"""Problems and pydantic's errors to diagnostics with places."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pydantic import ValidationError

from axoc.errors import Diagnostic
from axoc.spec.document import Document
from axoc.spec.fields import all_fields, dotted, known_keys
from axoc.spec.hints import key_fix
from axoc.spec.problems import WRONG, Path, Place, Problem
from axoc.spec.scalars import printable

MAX_SHOWN: Final = 100
"""A data file given by mistake may have thousands."""


def problems_of(error: ValidationError, document: Document) -> list[Problem]:
    """All of pydantic's errors, none of its words."""
    return [_problem(details, document) for details in error.errors(include_url=False, include_input=False)]


def diagnostics(problems: Iterable[Problem], document: Document) -> list[Diagnostic]:
    """In the order of the file; at most MAX_SHOWN, the last of which counts the others."""
    shown = sorted((_diagnostic(p, document) for p in problems), key=lambda d: (d.line or 0, d.column or 0))
    unique = list(dict.fromkeys(shown))
    if len(unique) <= MAX_SHOWN:
        return unique
    rest = Diagnostic(message=f"and {len(unique) - MAX_SHOWN:,} problems more", file=document.file)
    return [*unique[:MAX_SHOWN], rest]


def _problem(details: Any, document: Document) -> Problem:
    path = written_path(details["loc"], document)
    if details["type"] == "extra_forbidden":
        return _unknown_key(path)
    if details["type"] != WRONG:  # none is known: every field reads its value in words of its own
        return Problem(path=path, message="cannot be read", fix="see axoc schema for what belongs here")
    context = details["ctx"]
    if context["key"] is not None:
        path = (*path, context["key"])
        return Problem(path=path, message=context["message"], fix=context["fix"], at_key=True, whole=True)
    return Problem(path=path, message=context["message"], expected=context["expected"], fix=context["fix"])


def _unknown_key(path: Path) -> Problem:
    name, known = str(path[-1]), known_keys(path[:-1])
    where = f" of {dotted(path[:-1])}" if path[:-1] else ""
    fix = key_fix(name, known, tuple(all_fields()))
    message = f"'{printable(name)}' is not a key{where or ' of a spec'}"
    return Problem(path=path, message=message, expected=", ".join(known), fix=fix, at_key=True, whole=True)


def _diagnostic(problem: Problem, document: Document) -> Diagnostic:
    places = document.keys if problem.at_key else document.places
    place = problem.place or nearest_place(problem.path, places, document)
    message = problem.message if problem.whole else f"{printable(dotted(problem.path)) or 'the spec'} {problem.message}"
    return Diagnostic(
        message=message,
        file=document.file,
        line=place.line if place else None,
        column=place.column if place else None,
        expected=problem.expected,
        fix=problem.fix,
    )


def nearest_place(path: Path, places: dict[Path, Place], document: Document) -> Place | None:
    """What is missing has no place: then its mapping's, if that is not the whole file."""
    for length in range(len(path), 0, -1):
        found = places.get(path[:length]) or document.places.get(path[:length])
        if found:
            return found
    return None


def written_path(path: Path, document: Document) -> Path:
    """Pydantic sees a list of datasets and long forms; the file may hold one dataset, or a word."""
    if path[:2] == ("dataset", 0) and not isinstance(document.values.get("dataset"), list):
        path = ("dataset", *path[2:])
    if path and isinstance(path[-1], int) and path not in document.places:
        path = path[:-1]
    return path
