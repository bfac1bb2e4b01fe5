"""exports.json, and the table that a run ends with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from axoc_runtime.exports.one import EXPORTS, Outcome
from axoc_runtime.exports.source import Source
from axoc_runtime.files import write_json

FILE: Final = "exports.json"


def write_report(source: Source, outcomes: Sequence[Outcome]) -> None:
    """Under ``exports/``: those of earlier calls stay, as far as their folders do."""
    path = source.run / EXPORTS / FILE
    rows = {
        name: row for name, row in read_report(source.run).items() if (source.run / EXPORTS / row["folder"]).is_dir()
    }
    rows |= {o.name: _row(source, o) for o in outcomes if o.error is None}
    write_json(path, {"schema_version": 1, "exports": rows})


def read_report(run: Path) -> dict[str, Any]:
    """Format -> its row; none where there is no report."""
    try:
        found = json.loads((run / EXPORTS / FILE).read_text(encoding="utf-8"))["exports"]
    except (OSError, ValueError, KeyError):
        return {}
    return dict(found)


def _row(source: Source, outcome: Outcome) -> dict[str, Any]:
    assert outcome.folder is not None
    return {
        "folder": outcome.folder.name,
        "size_bytes": outcome.size_bytes,
        "seconds": outcome.seconds,
        "checked_by": outcome.checked_by,
        "measured_on": source.measured_on if outcome.measured is not None else None,
        "measured": None if outcome.measured is None else asdict(outcome.measured),
        "notes": list(outcome.notes),
    }


def show(run: Path, outcomes: Sequence[Outcome]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"Exports in {run / EXPORTS}")
    for title, side in (
        ("format", "left"),
        ("size", "right"),
        ("checked by", "left"),
        ("perplexity", "right"),
        ("", "left"),
    ):
        table.add_column(title, justify=side, overflow="fold")  # type: ignore[arg-type]
    for outcome in outcomes:
        table.add_row(*(Text(cell) for cell in cells(outcome)))
    Console().print(table)
    for note in dict.fromkeys(f"axoc: {o.name}: {note}" for o in outcomes for note in o.notes):
        print(note, flush=True)


def cells(outcome: Outcome) -> tuple[str, str, str, str, str]:
    if outcome.error is not None:
        return outcome.name, "", "", "", "not made"
    measured = outcome.measured
    perplexity = "" if measured is None or measured.perplexity is None else f"{measured.perplexity:.4g}"
    apart = (
        "" if measured is None or measured.perplexity_difference is None else f"{measured.perplexity_difference:+z.2%}"
    )
    return outcome.name, f"{outcome.size_bytes / 1e6:,.1f} MB", outcome.checked_by, perplexity, apart
