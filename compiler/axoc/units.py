"""Units: binary gigabytes, and how figures are shown to people."""

from __future__ import annotations

from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30


def gib(num_bytes: float) -> str:
    """``71.0 GiB``; MiB below a tenth of one."""
    if abs(num_bytes) < GIB / 10:
        return f"{num_bytes / MIB:.0f} MiB"
    return f"{num_bytes / GIB:.1f} GiB"


def duration(seconds: float) -> str:
    """``1 h 05 min``, ``3 min 20 s``, ``0.45 s``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min"


def count(number: float) -> str:
    """``1.24B``, ``135M``, ``512``."""
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.3g}{suffix}"
    return f"{number:g}"
