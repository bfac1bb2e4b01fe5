"""What a preflight finds: a line each, with the host at fault and what to do. All of them at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from axoc_runtime.errors import (
    EXIT_ENVIRONMENT,
    EXIT_HOSTS_DIFFER,
    EXIT_INPUTS,
    EXIT_NETWORK,
    EXIT_PREFLIGHT,
    EXIT_SLOW,
)

WARNING: Final = 0
ORDER: Final = (EXIT_INPUTS, EXIT_ENVIRONMENT, EXIT_PREFLIGHT, EXIT_HOSTS_DIFFER, EXIT_NETWORK, EXIT_SLOW)
"""Where there are several the exit code is the first of these: what stands before may be the cause of what follows."""


@dataclass(frozen=True)
class Finding:
    code: int
    """The exit code it leads to; ``WARNING`` stops nothing."""
    what: str
    fix: str
    where: str = ""
    """The host, and the rank where it is one's; empty for this machine, where there is only one."""

    def at(self, where: str) -> Finding:
        """The same, found there."""
        return Finding(self.code, self.what, self.fix, where)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def worst(findings: Iterable[Finding]) -> int:
    """The exit code of all together; 0 where there are but warnings."""
    codes = {f.code for f in findings}
    return next((code for code in ORDER if code in codes), max(codes, default=0))


def listed(findings: Iterable[Finding]) -> str:
    """A table, one line each, errors first."""
    rows = [
        ("warning" if f.code == WARNING else f"error {f.code}", f.where, f.what, f.fix)
        for f in sorted(findings, key=lambda f: (f.code == WARNING, f.where, f.code))
    ]
    head = ("", "where", "what", "what to do")
    return table(rows if any(where for _, where, _, _ in rows) else [(a, c, d) for a, _, c, d in rows], head)


def table(rows: Iterable[tuple[str, ...]], head: tuple[str, ...]) -> str:
    """Columns in line, two spaces apart and before; the last one as long as it is."""
    found = list(rows)
    found.insert(0, head if found and len(found[0]) == len(head) else (head[0], *head[2:]))
    widths = [max(len(row[i]) for row in found) for i in range(len(found[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in found)
    return "\n".join(f"  {line.rstrip()}" for line in lines)
