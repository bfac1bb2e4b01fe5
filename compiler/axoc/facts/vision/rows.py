"""Whether a spec's rows have images: by the format's name, or by a local file's first row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from axoc.errors import Diagnostic, UserError
from axoc.facts.first_row import image_column
from axoc.facts.lock import local_files
from axoc.ir.request import AUTO, DatasetRequest, PlanRequest

FORMATS: Final = ("vision_chat", "vision_qa")


@dataclass(frozen=True, kw_only=True)
class Rows:
    dataset: DatasetRequest
    images: bool | None
    """None where nobody can tell from here."""
    file: Path | None = None
    column: str | None = None

    @property
    def told(self) -> str:
        """For messages."""
        if self.column is None:
            return f"dataset.path {self.dataset.path}: rows of type {self.dataset.type} have images"
        return f"dataset.path {self.dataset.path}: the first row has images ({self.column})"


def with_vision(request: PlanRequest, locate: Callable[[str], Path]) -> tuple[PlanRequest, Rows | None]:
    """The request as what its rows are about makes it, and the first rows that have images. Raises UserError where other
    rows have none: a batch is of one kind."""
    found = [_rows(dataset, request, locate) for dataset in request.datasets]
    seen = next((rows for rows in found if rows.images), None)
    if seen is None:
        return request, None
    text = next((rows for rows in found if rows.images is False), None)
    if text is not None:
        message = f"{seen.told}, and those of {text.dataset.path} have none"
        fix = "train on the one, and go on with the other in a second run"
        raise UserError(Diagnostic(message=message, file=_name(seen.file), fix=fix))
    return replace(request, model=replace(request.model, vision=True)), seen


def _rows(dataset: DatasetRequest, request: PlanRequest, locate: Callable[[str], Path]) -> Rows:
    """A plugin may read what ``auto`` finds."""
    if dataset.type in FORMATS:
        return Rows(dataset=dataset, images=True)
    if dataset.type != AUTO:
        return Rows(dataset=dataset, images=False)
    if dataset.path is None or request.plugins:
        return Rows(dataset=dataset, images=None)
    file = next(iter(local_files(dataset.path, locate)), None)
    column = None if file is None else image_column(file)
    return Rows(dataset=dataset, images=None if column is None else True, file=file, column=column)


def blind(seen: Rows, error: UserError) -> UserError:
    """The model's problems, after the rows that it would have to see."""
    return UserError(
        *(replace(d, message=f"{seen.told}: {d.message}", file=_name(seen.file)) for d in error.diagnostics)
    )


def _name(file: Path | None) -> str | None:
    return None if file is None else str(file)
