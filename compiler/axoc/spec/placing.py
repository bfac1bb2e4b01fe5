"""Where in the spec a problem lies that was found after the spec itself was read: by looking things up, or by the search."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from axoc.errors import Diagnostic, UserError
from axoc.spec.diagnose import nearest_place
from axoc.spec.document import Document, read_document
from axoc.spec.fields import known_keys

_DOTTED: Final = re.compile(r"\b[a-z][a-z_]*(?:\.[a-z][a-z_]*)+")
_LEADING: Final = re.compile(r"[a-z][a-z_]*(?=:)")


@contextmanager
def placed(spec_path: Path, *, inventory_is_given: bool) -> Iterator[None]:
    """Gives problems that name a key of the spec the place of that key. ``inventory_is_given``: it is not the spec's."""
    try:
        yield
    except UserError as error:
        if any(d.file is None for d in error.diagnostics):
            error.diagnostics = _placed(error.diagnostics, spec_path, {"inventory"} if inventory_is_given else set())
        raise


def _placed(found: tuple[Diagnostic, ...], spec_path: Path, elsewhere: set[str]) -> tuple[Diagnostic, ...]:
    try:
        document = read_document(spec_path.read_text(encoding="utf-8-sig"), str(spec_path))
    except (OSError, ValueError, UserError):  # a pipe that was read once
        return found
    return tuple(_with_place(d, document, elsewhere) for d in found)


def _with_place(diagnostic: Diagnostic, document: Document, elsewhere: set[str]) -> Diagnostic:
    path = _key(diagnostic.message)
    if diagnostic.file is not None or not path or path[0] in elsewhere:
        return diagnostic
    place = nearest_place(path, document.places, document)
    return replace(
        diagnostic,
        file=document.file,
        line=place.line if place else None,
        column=place.column if place else None,
    )


def _key(message: str) -> tuple[str, ...]:
    """The first key of a spec that the message names; empty where it names none."""
    names = [match.group() for pattern in (_LEADING, _DOTTED) for match in [pattern.match(message)] if match]
    names += _DOTTED.findall(message)
    return next((tuple(n.split(".")) for n in names if n.split(".")[0] in known_keys(())), ())
