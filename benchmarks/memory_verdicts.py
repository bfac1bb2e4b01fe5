"""Would a plan have been declared to fit? What a planner would have said of rows that were measured, by how full the device was.

A verdict is of the plan: by a replay on a device without a limit, loaded as a bundle loads, and every row as long as the longest.
Rows that ran out of memory count as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from axoc.cost.replay.conditions import PLANNED
from axoc.facts.inventory import parse_inventory
from closed_form import measured_bytes, predict

SHARES: Final = (0.90, 0.95, 0.97)
DECLARED: Final = 0.95
"""Of the device, that a plan may use to be declared to fit."""
ALONE: Final = "h100-sxm-80gb"
PAIR: Final = "h200-sxm-141gb:2"
BANDS: Final = (("below 80%", 0.0), ("80 to 90%", 0.80), ("90 to 95%", 0.90), ("95% and above", 0.95))
OUT: Final = "ran out of memory"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    set: str
    row: str
    used: float | None
    """Share of the device, as measured. None where it ran out of memory."""
    planned: float
    built: bool
    """Whether the row helped to build what is judged."""

    @property
    def band(self) -> str:
        return OUT if self.used is None else [name for name, least in BANDS if self.used >= least][-1]

    @property
    def fits(self) -> bool:
        return self.planned <= DECLARED


@cache
def memory_bytes(inventory: str) -> int:
    return parse_inventory(inventory, None, None)[0].accelerator.memory_bytes


def planned(row: dict[str, Any]) -> float:
    """Share of the device that the plan would use."""
    found = predict(row, conditions=PLANNED).bytes("device_used")
    return found / row.get("device_total", memory_bytes(ALONE))


def fits(row: dict[str, Any], share: float) -> bool:
    return planned(row) <= share


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Row by row, with so much of the device to use. All of these ran."""
    lines = ["## near the limit: would they be planned?", ""]
    lines += ["All of them ran. Shares of the device that a plan may use:", ""]
    lines += ["| row | used as measured | planned | " + " | ".join(f"{s:.0%}" for s in SHARES) + " |"]
    lines += ["|---|--:|--:|" + "---|" * len(SHARES)]
    for row in rows:
        found = planned(row)
        shown = [f"{used_share(row):.1%}", f"{found:.1%}"]
        shown += ["fits" if found <= share else "refused" for share in SHARES]
        lines.append(f"| {row['id']} | " + " | ".join(shown) + " |")
    return [*lines, ""]


def of_one(sets: dict[str, Path], built: Iterable[str]) -> list[Verdict]:
    """measure.py's rows of one H100, by set. ``built``: the sets that led to terms."""
    rows = [(name, json.loads(line)) for name, path in sets.items() for line in path.read_text().splitlines()]
    kept = [(name, row) for name, row in rows if "error" not in row or "out of memory" in row["error"]]
    return [
        Verdict(set=name, row=row["id"], used=used_share(row), planned=planned(row), built=name in built)
        for name, row in kept
    ]


def used_share(row: dict[str, Any]) -> float | None:
    if "error" in row:
        return None
    return measured_bytes(row, "device_used") / row.get("device_total", memory_bytes(ALONE))


def of_two(path: Path, judging: int) -> list[Verdict]:
    """several_gpus.py's rows of two H200s, of which only the last so many judge."""
    import several_gpus_report

    rows = [row for row in map(json.loads, path.read_text().splitlines()) if "error" not in row]
    total, name = memory_bytes(PAIR), "device_used_bytes"
    return [
        Verdict(
            set="two H200s",
            row=f"{row['job']} {row['variant']}",
            used=row["measured"][name] / total,
            planned=several_gpus_report.predicted(row)[name] / total,
            built=number < len(rows) - judging,
        )
        for number, row in enumerate(rows)
    ]


def tally(found: list[Verdict]) -> list[str]:
    """By share of the device that was used."""
    bands = [*(name for name, _ in BANDS), OUT]
    lines = ["| used as measured | rows | that built nothing | declared to fit | refused |", "|---|--:|--:|--:|--:|"]
    for band in bands:
        here = [v for v in found if v.band == band]
        counts = [len(here), sum(not v.built for v in here), sum(v.fits for v in here), sum(not v.fits for v in here)]
        lines.append(f"| {band} | " + " | ".join(map(str, counts)) + " |")
    return [*lines, "", *sentences(found), ""]


def sentences(found: list[Verdict]) -> list[str]:
    fitting = [v for v in found if v.fits]
    out = [v for v in fitting if v.used is None]
    within = [v for v in found if v.used is not None and v.used <= 0.90]
    refused = [v for v in within if not v.fits]
    most = max(v.used or 0.0 for v in fitting)
    lines = [
        f"Of {len(fitting)} that were declared to fit {len(out)} ran out of memory{named(out)}, and the fullest of them used "
        f"{most:.1%}; of {len(within)} that ran within 90% {len(refused)} ({len(refused) / len(within):.1%}) would be "
        f"refused{named(refused)}.",
    ]
    over = [v for v in found if v.used is not None and v.used <= DECLARED and not v.fits and v not in refused]
    if over:
        shown = ", ".join(f"{v.row} (used {v.used:.1%}, planned {v.planned:.1%})" for v in over)
        lines.append(f"Refused, and used between 90% and {DECLARED:.0%}: {shown}.")
    return lines


def named(found: list[Verdict]) -> str:
    return f" ({', '.join(v.row for v in found)})" if found else ""
