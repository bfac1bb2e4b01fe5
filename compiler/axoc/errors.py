"""Errors a user can act on. Internal faults are ordinary exceptions and are never caught as these."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Diagnostic:
    """One problem: what is wrong, where, what was expected, the smallest fix."""

    message: str
    file: str | None = None
    line: int | None = None
    """1-based."""
    column: int | None = None
    """1-based."""
    expected: str | None = None
    fix: str | None = None
    link: str | None = None

    @property
    def place(self) -> str:
        parts = [str(p) for p in (self.file, self.line, self.column) if p is not None]
        return ":".join(parts)

    def render(self) -> str:
        lines = [f"{self.place}: {self.message}" if self.place else self.message]
        for label, text in (("expected", self.expected), ("fix", self.fix), ("see", self.link)):
            if text:
                lines.append(f"  {label}: {text}")
        return "\n".join(lines)


def reason(error: Exception) -> str:
    """Why a file could not be read, for a message that names it already."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


class UserError(Exception):
    """The inputs are wrong: every diagnostic found, at once. Exit code 1."""

    exit_code = 1

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__("; ".join(d.message for d in diagnostics))
        self.diagnostics = diagnostics

    def render(self) -> str:
        return "\n".join(d.render() for d in self.diagnostics)
