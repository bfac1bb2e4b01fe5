"""Calibration profiles: what one accelerator's kernels were measured to take (docs/calibration.md).

Those shipped lie in facts/calibration, one file an accelerator, made by ``python -m axoc_runtime.calibrate``. An inventory
file names one of the user's own, which may hold nothing but runs that were folded into it (review/fold.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, Final

from axoc.ir.facts import ClusterFacts

SCHEMA_VERSION: Final = 1
KIND: Final = "axoc calibration profile"
_PACKAGE: Final = "axoc.facts"


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How many times as long as the tables say: one machine's own, from runs on it."""

    device: float = 1.0
    """The accelerator's kernels: its clock under its power limit and cooling."""
    host: float = 1.0
    """Launching them: the processor, and what else runs on it."""
    links: float = 1.0
    """Collectives between accelerators."""


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """Seconds by kernel and size. Missing tables were not measured: whoever reads one says what it does without it."""

    accelerator: str
    """Catalog name."""
    made: str
    """ISO date."""
    cache_bytes: float
    """Of the last cache before memory."""
    versions: dict[str, str]
    pace: Pace = field(default_factory=Pace)
    bands: dict[str, float] = field(default_factory=dict)
    """The largest error that was left in runs on this machine, by kind: busy, waiting, several."""
    _tables: dict[str, Any] = field(repr=False)

    @cached_property
    def tables(self) -> dict[str, Table]:
        return {
            name: Table(columns=tuple(t["columns"]), rows=tuple(map(tuple, t["rows"])))
            for name, t in self._tables.items()
        }


def profile_for(cluster: ClusterFacts) -> Profile | None:
    """The inventory's own profile, else the one that ships; None where the accelerator has neither."""
    if cluster.calibration is not None:
        return parse_profile(cluster.accelerator.name, cluster.calibration)
    return shipped_profile(cluster.accelerator.name)


@cache
def shipped_profile(accelerator: str) -> Profile | None:
    """The profile that ships for a catalog accelerator; None where none was measured."""
    text = shipped_profile_text(accelerator)
    return None if text is None else parse_profile(accelerator, text)


def shipped_profile_text(accelerator: str) -> str | None:
    file = files(_PACKAGE).joinpath("calibration", f"{accelerator}.json")
    return file.read_text(encoding="utf-8") if file.is_file() else None


@cache
def parse_profile(accelerator: str, text: str) -> Profile:
    """From the file's text. Raises ValueError where it is not a profile of a known version, or not of that accelerator."""
    values = profile_values(text)
    if values.get("accelerator", accelerator) != accelerator:
        raise ValueError(f"a calibration profile of {values['accelerator']}, not of {accelerator}")
    try:
        folded = values.get("folded", {})
        return Profile(
            accelerator=accelerator,
            made=values["made"],
            cache_bytes=float(values.get("device", {}).get("cache_bytes", 0.0)),
            versions=values.get("versions", {}),
            pace=Pace(**folded.get("pace", {})),
            bands={str(kind): float(share) for kind, share in folded.get("bands", {}).items()},
            _tables=values["tables"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a calibration profile that is not whole: {error}") from None


def profile_values(text: str) -> dict[str, Any]:
    """The file's object. Raises ValueError where it is not a profile of a known version."""
    values = json.loads(text)
    if not isinstance(values, dict) or values.get("kind", KIND) != KIND or "schema_version" not in values:
        raise ValueError("not a calibration profile: axoc calibrate writes one")
    if values["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"a calibration profile of version {values['schema_version']}, not {SCHEMA_VERSION}")
    return values
