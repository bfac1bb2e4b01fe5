"""Lengths of rows as a preparation counted them (``lengths.json``), and as a lock keeps them: ``64x120 128x300`` is 120 rows
of up to 64 tokens and 300 of up to 128."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from axoc.errors import Diagnostic, UserError
from axoc.ir.facts import RowLengths

Histogram = tuple[tuple[int, int], ...]
"""(tokens up to, rows), ascending."""


def read_histogram(path: Path) -> Histogram:
    """Of a ``lengths.json``, or of the folder that holds it. Raises UserError where it is not one."""
    file = path / "lengths.json" if path.is_dir() else path
    fix = "give the lengths.json that preparing the data left beside it"
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
        histogram = tuple((int(upto), int(rows)) for upto, rows in found["histogram"])
    except OSError as error:
        message = f"cannot read the lengths: {error.strerror}"
        raise UserError(Diagnostic(message=message, file=str(file), fix=fix)) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(Diagnostic(message="these are no lengths of rows", file=str(file), fix=fix)) from None
    if not is_histogram(histogram):
        raise UserError(Diagnostic(message="these lengths are of no rows", file=str(file), fix=fix))
    return histogram


def is_histogram(found: Sequence[tuple[int, int]]) -> bool:
    ascending = all(a[0] < b[0] for a, b in pairwise(found))
    return bool(found) and ascending and found[0][0] > 0 and all(rows > 0 for _, rows in found)


def as_text(lengths: RowLengths | None) -> str | None:
    """For a lock; None where the lengths are not of a count."""
    if lengths is None or not lengths.counted:
        return None
    return " ".join(f"{upto}x{rows}" for upto, rows in lengths.counted)


def from_text(text: str) -> RowLengths:
    """Raises ValueError."""
    pairs = tuple(tuple(int(n) for n in part.split("x")) for part in text.split())
    found = tuple((pair[0], pair[1]) for pair in pairs if len(pair) == 2)
    if len(found) != len(pairs) or not is_histogram(found):
        raise ValueError(text[:40])
    return counted(found)


def counted(histogram: Histogram) -> RowLengths:
    """Each row as long as the middle of its bucket, which begins where the one before ends, or is as wide as the narrowest
    where there is a gap."""
    edges = [0, *(upto for upto, _ in histogram)]
    width = min(b - a for a, b in pairwise(edges))
    total = sum(rows for _, rows in histogram)
    return RowLengths(
        tokens=tuple(upto - (width - 1) / 2 for upto, _ in histogram),
        shares=tuple(rows / total for _, rows in histogram),
        source=f"{total:,} rows as prepared",
        counted=histogram,
    )
