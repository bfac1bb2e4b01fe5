"""What DeepSpeed's ZeRO-3 takes of the host: hooks in Python before and after each module that holds weights, forward and backward,
which fetch, trace and release its parameters (deepspeed/runtime/zero/parameter_offload.py, partitioned_param_coordinator.py)."""

from __future__ import annotations

from typing import Final, cast

from axoc.cost.columns import Columns, Floats
from axoc.cost.kernels import pace_of
from axoc.cost.scenario import Scenario
from axoc.facts.parameters import linear_shapes

MODULE_SECONDS: Final = 2.15e-3
"""Of a module, forward and backward together, on one rank: 1B on an H100 (benchmarks/rows/h100-runtime.jsonl)."""
SHARED_SECONDS: Final = 1.65e-3
"""More of it where several ranks gather: 3.7 to 3.9 ms in all for 1B, 3B and 8B alike (benchmarks/rows/h200-several.jsonl)."""
NORMS: Final = 2
"""Of a block. Modules outside the blocks are too few to count."""
PAIR: Final = 2


def host_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Of a micro-step, at least; the device cannot be done before. Measured with full weights and nothing recomputed: a
    second forward's hooks are left out, and an adapter's modules are taken to cost as much as any."""
    shapes = linear_shapes(scenario.model)
    linears = sum(s.copies_per_layer for s in shapes)
    adapters = PAIR * linears if scenario.adapter is not None else 0
    modules = (linears + adapters + NORMS) * scenario.model.num_layers
    seconds = MODULE_SECONDS + SHARED_SECONDS * (c.world > 1)
    return cast(Floats, modules * seconds * c.uses("zero3") * pace_of(scenario).host)
