"""The accelerators of this machine in short: for questions and for `axoc doctor`. No part of planning."""

from __future__ import annotations

from collections import Counter

from axoc.errors import UserError
from axoc.facts import detect


def inventory_name() -> str | None:
    """``h100-sxm-80gb:8``; None without GPUs, or with such as the catalog does not know or several kinds."""
    output = detect.smi()
    if not output:
        return None
    try:
        kinds = Counter(name for name, _ in detect.parse_devices(output))
    except UserError:
        return None
    if len(kinds) != 1:
        return None
    ((name, number),) = kinds.items()
    return f"{name}:{number}"
