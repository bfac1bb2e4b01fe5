"""Versions: in which releases of a library a combination fails, and which releases bundles run with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from axoc import __version__

PINS: Final[dict[str, tuple[str, ...]]] = {
    "torch": ("2.11.0", "2.13.0"),
    "transformers": ("5.17.0",),
    "accelerate": ("1.15.0",),
    "peft": ("0.21.2",),
    "datasets": ("5.2.0",),
    "deepspeed": ("0.19.8",),
    "bitsandbytes": ("0.50.2",),
    "liger-kernel": ("0.8.5",),
    "trl": ("1.16.0",),
    "axoc-runtime": (__version__,),
}
"""Every version that a lock of the bundles pins (templates/axoc_templates/locks): a test keeps the two equal."""


@dataclass(frozen=True, kw_only=True)
class Versions:
    """A range of releases: ``first`` inclusive, ``until`` exclusive. None: not known to begin, or not to have ended."""

    library: str
    """The distribution's name, as on PyPI."""
    first: str | None = None
    """The release it was first reported of."""
    until: str | None = None
    """The first release in which it was seen not to fail."""

    def cover(self, version: str) -> bool:
        key = release(version)
        return (self.first is None or key >= release(self.first)) and (self.until is None or key < release(self.until))

    @property
    def pinned(self) -> bool:
        """True where a bundle may run with such a release: of a library that no lock pins, any may be installed."""
        return any(map(self.cover, PINS[self.library])) if self.library in PINS else True

    def __str__(self) -> str:
        first = f" from {self.first}" if self.first else ""
        return f"{self.library}{first}" + (f" until {self.until}" if self.until else "")


def release(version: str) -> tuple[int, ...]:
    """The numbers of a release; a local part (``+cpu``) and trailing zeros do not count."""
    numbers = [int(n) for n in re.findall(r"\d+", version.partition("+")[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
