"""Error bands stated with each estimate. Widths come from the rows in docs/accuracy.md, which also built the model:
until rows apart from those judge it, the bands are the worst error seen, not the mean.
"""

from __future__ import annotations

from typing import Final

from axoc.cost.scenario import Scenario

MEMORY_FUSED: Final = 0.05
MEMORY_PLAIN: Final = 0.13
"""With plain logits the allocator's fragmentation (reserved over allocated) is the larger unknown."""
TIME_DATASHEET: Final = 0.35
CPU: Final = 0.5


def bands(scenario: Scenario) -> tuple[float, float]:
    """(memory, time) as shares of the prediction."""
    if scenario.on_cpu:
        return CPU, CPU
    return (MEMORY_FUSED if scenario.fused_loss else MEMORY_PLAIN), TIME_DATASHEET
