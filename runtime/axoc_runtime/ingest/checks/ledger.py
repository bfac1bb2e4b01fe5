"""All findings of a run: counted, written to a CSV report as they come, and the first of each kind kept to be shown."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

from axoc_runtime.ingest.base import Record
from axoc_runtime.ingest.checks.finding import ERROR, LEFT_OUT, WARNING, Finding

COLUMNS: Final = ("level", "check", "file", "row", "byte", "column", "message", "sample", "fix")
SHOWN_OF_A_KIND: Final = 5
LEVELS: Final = (ERROR, LEFT_OUT, WARNING)
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet run a cell: data must not."""


class Ledger:
    """A context: the report gets its name when the block ends, whether well or not. With ``append`` what is there already
    is kept, and added to."""

    def __init__(self, report: Path, quarantine: Path | None = None, *, append: bool = False) -> None:
        self.report, self.quarantine, self.append = report, quarantine, append
        self.counts: Counter[tuple[str, str]] = Counter()
        self.shown: dict[tuple[str, str], list[Finding]] = {}
        self.rows_listed = self.rows_quarantined = 0
        """Rows that are not used, each counted once."""

    def __enter__(self) -> Ledger:
        self._beside = self._unfinished(self.report)
        self._file = self._opened(self._beside)
        self._csv = csv.writer(self._file)
        if not self._file.tell():
            self._csv.writerow(COLUMNS)
        self._kept: IO[str] | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._beside.replace(self.report)
        if self._kept is not None and self.quarantine is not None:
            self._kept.close()
            self._quarantine_beside.replace(self.quarantine)
        elif self.quarantine is not None and not self.append:
            self.quarantine.unlink(missing_ok=True)

    def _unfinished(self, path: Path) -> Path:
        return path if self.append else path.with_name(f".{path.name}.{os.getpid()}")

    def _opened(self, path: Path) -> IO[str]:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a" if self.append else "w", encoding="utf-8", newline="")

    def add(self, *findings: Finding) -> None:
        for finding in findings:
            kind = (finding.level, finding.check)
            self.counts[kind] += 1
            if self.counts[kind] <= SHOWN_OF_A_KIND:
                self.shown.setdefault(kind, []).append(finding)
            self._csv.writerow(_cells(finding))

    def unused(self, record: Record, findings: tuple[Finding, ...], *, keep: bool) -> None:
        """A row that is not used: listed once in the accounts, and kept in the quarantine where that is wanted."""
        self.add(*findings)
        self.rows_listed += 1
        if keep and self.quarantine is not None:
            self._keep(record, findings)

    def _keep(self, record: Record, findings: tuple[Finding, ...]) -> None:
        if self._kept is None:
            assert self.quarantine is not None
            self._quarantine_beside = self._unfinished(self.quarantine)
            self._kept = self._opened(self._quarantine_beside)
        self.rows_quarantined += 1
        place = {"file": record.file or record.place, "row": record.number, "byte": record.offset}
        content: dict[str, Any] = {"raw": record.raw} if record.problem is not None else {"content": record.row}
        line = place | {"problems": [f.text for f in findings if f.level != WARNING]} | content
        self._kept.write(json.dumps(line, default=str) + "\n")

    def total(self, level: str) -> int:
        return sum(count for (of, _), count in self.counts.items() if of == level)

    def as_dict(self) -> Mapping[str, Any]:
        """How many of each kind there are, by level."""
        return {level: {check: n for (of, check), n in sorted(self.counts.items()) if of == level} for level in LEVELS}


def _cells(finding: Finding) -> list[str]:
    row, offset = (("" if n is None else str(n)) for n in (finding.row, finding.offset))
    values = (finding.level, finding.check, finding.file, row, offset, finding.column or "")
    return [_harmless(v) for v in (*values, finding.message, finding.sample, finding.fix)]


def _harmless(cell: str) -> str:
    text = cell.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if text.startswith(FORMULA) else text
