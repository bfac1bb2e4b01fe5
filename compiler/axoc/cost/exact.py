"""Reserved memory of single candidates, from a replay of their allocations.

Too slow for the whole space (0.1 s for a deep model), so a search replays what it would choose, and what it shows
beside that keeps the quick account of memory.py.
"""

from __future__ import annotations

import numpy as np

from axoc.cost import sight, states
from axoc.cost.columns import Columns
from axoc.cost.host import add_to_tensors, broadcast_bytes
from axoc.cost.memory import GROWTH_BYTES, MemoryColumns, device_used
from axoc.cost.replay.conditions import PLANNED, Conditions
from axoc.cost.replay.run import replay, resident_bytes
from axoc.cost.scenario import Scenario


def settle(scenario: Scenario, c: Columns, memory: MemoryColumns, row: int, conditions: Conditions = PLANNED) -> None:
    """``scenario``: as the row runs it.

    Writes the row's replayed ``reserved`` and ``device_used`` over the quick ones; of a CPU's ranks also the host's memory."""
    one = c.rows(np.arange(len(c)) == row).of_one_variant()
    if scenario.on_cpu:
        _settle_on_cpu(scenario, one, memory, row)
        return
    pages = -(-float(memory.allocated[row]) // GROWTH_BYTES)
    images = 0.0 if scenario.model.vision is None else float(sight.held_bytes(scenario, one)[0])
    replayed = replay(scenario, one, conditions)
    memory.reserved[row] = max(replayed.peak_reserved_bytes + images, pages * GROWTH_BYTES)
    memory.device_used[row] = device_used(scenario, one, memory.reserved[row : row + 1])[0]


def _settle_on_cpu(scenario: Scenario, one: Columns, memory: MemoryColumns, row: int) -> None:
    """What the C library keeps of freed tensors is resident as well; before that, what DDP broadcasts."""
    resident = float(max(resident_bytes(scenario, one), memory.allocated[row]))
    ranks = min(int(one.world[0]), scenario.cluster.accelerators_per_node)
    add_to_tensors(memory.host, row, ranks * (resident - float(memory.reserved[row])))
    memory.reserved[row] = resident
    wrapped = states.weights(scenario, one) + broadcast_bytes(scenario, one)
    memory.device_used[row] = device_used(scenario, one, np.maximum(memory.reserved[row : row + 1], wrapped))[0]
