"""One thing that is wrong with a row, or with a dataset as a whole."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Record
from axoc_runtime.ingest.checks import secrets

ERROR: Final = "error"
"""The row cannot be used: ``dataset.on_bad_row`` says what follows."""
LEFT_OUT: Final = "left out"
"""The row is not used, as the spec's settings have it; the run goes on."""
WARNING: Final = "warning"
"""The row is used."""
SAMPLE_CHARACTERS: Final = 120
LOOKED_AT: Final = 4 * SAMPLE_CHARACTERS
"""Characters: a secret that begins in a sample ends in them."""
STEP: Final = re.compile(r"[^.\[\]]+")
"""Of a column's path: ``messages[1].content``."""
AS_ASKED: Final = ("too-long",)
"""Checks that leave a row out because the spec says so: nothing is wrong with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    level: str
    check: str
    """A word for the kind: malformed, encoding, missing-column, role-order, …"""
    place: str
    """The row as messages name it, or the dataset's path."""
    file: str
    row: int | None
    """The line in files of lines, else the row, counted from 1; None for what is wrong with all of a dataset."""
    offset: int | None
    """Bytes before the row in its file, once decompressed."""
    column: str | None
    message: str
    sample: str
    fix: str

    @property
    def text(self) -> str:
        column = f"{self.column} " if self.column else ""
        return f"{self.place}: {column}{self.message}"


def of_row(level: str, check: str, record: Record, message: str, **more: str | None) -> Finding:
    """``more``: column, sample, fix. Without a sample it is how the row, or what is in the column, begins."""
    column, sample = more.get("column"), more.get("sample")
    return Finding(
        level=level,
        check=check,
        place=record.place,
        file=record.file or record.place,
        row=record.number,
        offset=record.offset,
        column=column,
        message=message,
        sample=shortened(standing(record, column) if sample is None else sample),
        fix=more.get("fix") or "",
    )


def of_error(error: BadRow, record: Record) -> Finding:
    column = error.column
    level = LEFT_OUT if error.check in AS_ASKED else ERROR
    fix = error.fix or FIXES.get(error.check, "repair or remove the row")
    return of_row(level, error.check, record, str(error), column=column, fix=fix)


def standing(record: Record, column: str | None) -> str:
    """What stands where the finding is: in the column, as far as its path leads, else in the row."""
    if record.problem is not None:
        return record.raw
    value: Any = record.row
    for step in STEP.findall(column or ""):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, Sequence) and not isinstance(value, str) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            break
    try:
        return str(dict(value) if value is record.row else value)
    except RecursionError:  # as deep as its reader went, and a little deeper from here
        return ""


def of_dataset(check: str, path: str, message: str, fix: str, *, column: str | None = None) -> Finding:
    return Finding(
        level=WARNING, check=check, place=path, file=path, row=None, offset=None, column=column,
        message=message, sample="", fix=fix,
    )  # fmt: skip


def shortened(text: str) -> str:
    """One line that can be shown: what cannot be printed is escaped, and secrets are masked."""
    cut = secrets.hidden(text[:LOOKED_AT])[: SAMPLE_CHARACTERS + 1]
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut)
    return line if len(cut) <= SAMPLE_CHARACTERS else line[:SAMPLE_CHARACTERS] + "…"


FIXES: Final = {
    "role-order": "repair the order: system, then user and assistant in turn, tools after the call they answer",
    "unknown-role": "rename the role",
    "tool-call": "give every call a result, and every result its call",
    "empty": "fill it in or remove the row",
    "type": "write it as the format has it, or name another in dataset.type",
    "encoding": "convert the file to UTF-8",
    "template": "repair the row, or use a model whose chat template takes it",
}
"""Check -> the smallest fix, where the error itself names none."""
