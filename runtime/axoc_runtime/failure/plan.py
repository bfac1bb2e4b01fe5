"""The bundle's plan.json, read for what a failure has to say. Nothing here may fail: it is read after something has."""

from __future__ import annotations

import json
from typing import Any

from axoc_runtime.job import Job


def memory(value: dict[str, Any]) -> dict[str, Any]:
    """The memory estimate of a plan or of a candidate."""
    found = value.get("estimate", {}).get("memory", {})
    return found if isinstance(found, dict) else {}


def plan(job: Job) -> dict[str, Any]:
    """Empty where there is none."""
    try:
        value = json.loads((job.bundle_dir / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def ledger(job: Job, name: str = "ledger") -> list[dict[str, Any]]:
    """Items with their bytes: ``ledger`` (device), ``host_ledger`` or ``disk_ledger``."""
    found = memory(plan(job)).get(name, [])
    return [i for i in found if isinstance(i, dict) and {"item", "bytes"} <= set(i)]
