"""Calibration profiles: what one accelerator's kernels were measured to take (docs/calibration.md).

Those shipped lie in facts/calibration, one file an accelerator, made by ``python -m axoc_runtime.calibrate``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, Final

SCHEMA_VERSION: Final = 1
_PACKAGE: Final = "axoc.facts"


@dataclass(frozen=True, kw_only=True)
class Table:
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def column(self, name: str) -> list[Any]:
        """Raises ValueError for a name that the table has not."""
        index = self.columns.index(name)
        return [row[index] for row in self.rows]

    def where(self, **wanted: Any) -> Table:
        """Rows whose keys have those values; the columns asked for stay."""
        rows = self.rows
        for name, value in wanted.items():
            index = self.columns.index(name)
            rows = tuple(row for row in rows if row[index] == value)
        return Table(columns=self.columns, rows=rows)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Seconds by kernel and size. Missing tables were not measured: whoever reads one says what it does without it."""

    accelerator: str
    """Catalog name."""
    made: str
    """ISO date."""
    cache_bytes: float
    """Of the last cache before memory."""
    versions: dict[str, str]
    _tables: dict[str, Any] = field(repr=False)

    @cached_property
    def tables(self) -> dict[str, Table]:
        return {
            name: Table(columns=tuple(t["columns"]), rows=tuple(map(tuple, t["rows"])))
            for name, t in self._tables.items()
        }


@cache
def shipped_profile(accelerator: str) -> Profile | None:
    """The profile that ships for a catalog accelerator; None where none was measured."""
    file = files(_PACKAGE).joinpath("calibration", f"{accelerator}.json")
    if not file.is_file():
        return None
    return parse_profile(accelerator, file.read_text(encoding="utf-8"))


def parse_profile(accelerator: str, text: str) -> Profile:
    """From the file's text. Raises ValueError where it is not a profile of a known version."""
    values = json.loads(text)
    if values.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"a calibration profile of version {values.get('schema_version')}, not {SCHEMA_VERSION}")
    return Profile(
        accelerator=accelerator,
        made=values["made"],
        cache_bytes=float(values["device"]["cache_bytes"]),
        versions=values["versions"],
        _tables=values["tables"],
    )
