"""Progress on standard error: a live line on a terminal, one line a finished table elsewhere. Needs no package."""

from __future__ import annotations

import sys
from typing import Final

WIDTH: Final = 24


class Bar:
    """Counts points of all tables together."""

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        self.total = max(total, 1)
        self.passed = 0
        self.quiet = quiet
        self.live = sys.stderr.isatty() and not quiet

    def show(self, name: str, done: int, of: int) -> None:
        if self.live:
            share = min(1.0, (self.passed + done) / self.total)
            bar = "#" * int(WIDTH * share)
            print(f"\r[{bar:<{WIDTH}}] {share:>4.0%} {name} {done}/{of}\033[K", end="", file=sys.stderr, flush=True)

    def finished(self, name: str, points: int, rows: int, seconds: float) -> None:
        """``points`` were asked for, ``rows`` were measured."""
        self.passed += points
        if self.quiet:
            return
        start = "\r\033[K" if self.live else ""
        print(f"{start}{name:<20} {rows:>5} of {points:<5} points {seconds:>7.1f} s", file=sys.stderr, flush=True)
