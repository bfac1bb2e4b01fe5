"""A row of the profile: one method's figures, or its error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from axoc_runtime.quantize import compare
from axoc_runtime.quantize.compare import Change
from axoc_runtime.quantize.methods import Method


@dataclass(frozen=True, kw_only=True)
class Row:
    method: Method
    measured: dict[str, Any] | None
    """What the worker measured; None where it did not come so far."""
    made: dict[str, Any] | None
    """How it was written; None of the unquantized model."""
    change: Change | None = None
    """Of the perplexity; None of the unquantized model, and where that was not measured."""
    same_top: float | None = None
    error: str | None = None
    fix: str | None = None

    @property
    def size_bytes(self) -> int:
        return int(self._figure("size_bytes") or 0)

    @property
    def on_gpu(self) -> bool:
        return bool(self._figure("on_gpu"))

    @property
    def peak_bytes(self) -> int:
        return int(self._figure("peak_bytes") or 0)

    @property
    def perplexity(self) -> float | None:
        return None if self.measured is None else compare.perplexity(self.measured["read"])

    @property
    def windows(self) -> int:
        """Of held-out text that were read in the time there was."""
        return 0 if self.measured is None else len(self.measured["read"]["counts"])

    @property
    def read_speed(self) -> dict[str, float] | None:
        return None if self.measured is None else self.measured["read"]["speed"]

    @property
    def write_speed(self) -> dict[str, float] | None:
        found: dict[str, float] | None = self._figure("write_speed")
        return found

    @property
    def notes(self) -> list[str]:
        made = [] if self.made is None else self.made.get("notes", [])
        note = self._figure("note")
        return [*made, *([note] if note else [])]

    def _figure(self, name: str) -> Any:
        return None if self.measured is None else self.measured[name]

    def as_dict(self) -> dict[str, Any]:
        """For profile.json; token by token it stays in measurements/."""
        found: dict[str, Any] = {
            "method": self.method.name,
            "export": self.method.written,
            "error": self.error,
            "fix": self.fix,
        }
        if self.measured is None:
            return found
        names = ("size_bytes", "peak_bytes", "loading_peak_bytes", "on_gpu", "runner", "write_speed")
        return (
            found
            | {name: self.measured[name] for name in names}
            | {
                "windows": self.windows,
                "read_speed": self.read_speed,
                "perplexity": self.perplexity,
                "same_top_token": self.same_top,
            }
            | {"perplexity_change": None if self.change is None else asdict(self.change), "notes": self.notes}
            | {"making": None if self.made is None else {k: self.made[k] for k in ("seconds", "peak_bytes")}}
        )


def rows_of(records: Sequence[tuple[Method, dict[str, Any]]]) -> list[Row]:
    """In order; the first record is the unquantized model's."""
    base = records[0][1].get("measured")
    return [_row(method, record, base) for method, record in records]


def _row(method: Method, record: dict[str, Any], base: dict[str, Any] | None) -> Row:
    measured = record.get("measured")
    pair = None if measured is None or base is None or measured is base else (measured["read"], base["read"])
    return Row(
        method=method,
        measured=measured,
        made=record.get("made"),
        change=None if pair is None else compare.change(*pair),
        same_top=None if pair is None else compare.same_top(*pair),
        error=record.get("error"),
        fix=record.get("fix"),
    )
