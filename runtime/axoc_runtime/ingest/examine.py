"""A record to an example, with all that is wrong with the row. It knows nothing but the row: any process may do it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from axoc_runtime.ingest.base import IMAGES, BadRow, Example, Pictured, Record, Schema
from axoc_runtime.ingest.checks.content import content_findings
from axoc_runtime.ingest.checks.finding import ERROR, LEFT_OUT, WARNING, Finding, of_error, of_row
from axoc_runtime.ingest.checks.images import image_findings
from axoc_runtime.ingest.checks.speech import speech_findings
from axoc_runtime.ingest.gather import MADE_OF_TEXT, NO_IMAGES
from axoc_runtime.job import DatasetJob


@dataclass(frozen=True, kw_only=True)
class Examined:
    example: Example | None
    """None where the row is not used."""
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What an objective takes."""

    objective: str
    accepts: tuple[type, ...]
    wants: str


def examine(
    record: Record, schema: Schema, dataset: DatasetJob, wanted: Wanted, folder: Path | None = None
) -> Examined:
    """Every row is either used, or has a finding that says why not. ``folder``: where paths in rows count from."""
    try:
        example = converted(record, schema)
    except BadRow as error:
        return Examined(example=None, findings=(of_error(error, record),))
    findings = (
        *content_findings(record),
        *speech_findings(record, example, dataset),
        *image_findings(record, example, folder or Path()),
        *_images_left_out(record, schema),
        *_unwanted(record, example, schema, wanted),
    )
    unusable = any(f.level in (ERROR, LEFT_OUT) for f in findings)
    return Examined(example=None if unusable else example, findings=findings)


def converted(record: Record, schema: Schema) -> Example:
    """Raises BadRow."""
    if record.problem is not None:
        raise record.problem
    row = record.row
    if not any(holds_something(v) for v in row.values()):
        raise BadRow("is empty", check="empty", fix="remove the row")
    if missing := [c for c in schema.columns if c not in row]:
        raise _missing(missing, row, schema)
    return _guarded(schema, row)


def _unwanted(record: Record, example: Example, schema: Schema, wanted: Wanted) -> Iterator[Finding]:
    if isinstance(example, wanted.accepts):
        return
    message = f"is in the format {schema.name}: objective {wanted.objective} needs {wanted.wants}"
    fix = "set training.objective, or another dataset"
    if isinstance(example, Pictured):
        message = f"is in the format {schema.name}: {NO_IMAGES}"
        fix = MADE_OF_TEXT
    yield of_row(ERROR, "objective", record, message, fix=fix)


def _images_left_out(record: Record, schema: Schema) -> Iterator[Finding]:
    """By a format of texts that the spec names: `auto` takes none for such rows."""
    for name in IMAGES:
        if record.row.get(name) and name not in schema.columns and name not in schema.optional:
            message = f"is left out: {schema.name} is a format of texts"
            yield of_row(WARNING, "image", record, message, column=name, fix="remove what is asked about images")


def holds_something(value: Any) -> bool:
    return value is not None and value != "" and value != [] and value != {}


def _missing(missing: list[str], row: Mapping[str, Any], schema: Schema) -> BadRow:
    message = f"has no column {' or '.join(missing)}, which {schema.name} needs"
    close = get_close_matches(missing[0], [str(c) for c in row], n=1)
    fix = f"rename {close[0]} to {missing[0]}" if close else f"add {missing[0]}, or remove the row"
    return BadRow(message, missing[0], check="missing-column", fix=fix)


def _guarded(schema: Schema, row: Mapping[str, Any]) -> Example:
    """A schema that a row surprises must not end the run: the row is named instead."""
    try:
        return schema.convert(row)
    except BadRow:
        raise
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError) as error:
        message = f"is not what {schema.name} expects: {type(error).__name__}: {str(error)[:80]}"
        raise BadRow(message, check="type", fix=f"compare it with the format {schema.name}") from None
