"""The margin of the chosen row: how much room its devices and nodes leave, and which setting would use it up first."""

from __future__ import annotations

import math

from axoc.cost.first_to_break import settled_margins
from axoc.cost.margin import Room
from axoc.ir.margin import Margin
from axoc.search.passes import Pass


def margin(found: Pass, row: int) -> Margin:
    costed, limits = found.costed, found.limits
    room = Room(
        device_bytes=costed.capacity_bytes * (1 - found.safety),
        # what such nodes usually have is preferred, and no limit: what needs more is planned with a warning
        host_bytes=math.inf if limits.host_is_usual else limits.host_bytes,
        disk_bytes=limits.disk_bytes,
    )
    reserved_share = float(costed.memory.reserved[row] / costed.memory.allocated[row])
    host, disk = -float(found.host_shortfall()[row]), -float(found.disk_shortfall()[row])
    host_known = math.isfinite(host) and not limits.host_is_usual
    return Margin(
        free_bytes=round(-float(found.shortfall()[row])),
        kept_free=found.safety,
        host_free_bytes=round(host) if host_known else None,
        disk_free_bytes=round(disk) if math.isfinite(disk) else None,
        knobs=settled_margins(costed.variant(row), costed.columns.of_one_variant(), row, room, reserved_share),
    )
