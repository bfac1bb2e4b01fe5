"""The chosen candidate of a plan, as the cost model sees it: for what looks at a plan again."""

from __future__ import annotations

import numpy as np

from axoc.cost.columns import OFFLOADS, STRATEGIES, Columns
from axoc.cost.scenario import Scenario
from axoc.ir.plan import Plan
from axoc.search.scenarios import scenario_of
from axoc.search.ways import Way


def scenario_of_plan(plan: Plan) -> tuple[Scenario, Columns]:
    """What the plan runs, and how, in one row."""
    chosen = plan.chosen.candidate
    way = Way(attention=chosen.attention, kernels=chosen.kernels, compile=chosen.compile, packing=chosen.packing)
    scenario = scenario_of(
        plan.request, plan.model, plan.cluster, [way], chosen.quantization, chosen.optimizer,
        chosen.global_batch_size, plan.data,
    )  # fmt: skip
    values = {
        "strategy": STRATEGIES.index(chosen.strategy),
        "data_parallel": chosen.data_parallel,
        "tensor_parallel": chosen.tensor_parallel,
        "replicate_degree": chosen.replicate_degree,
        "micro_batch": chosen.micro_batch_size,
        "accumulation": chosen.gradient_accumulation_steps,
        "checkpointed_layers": chosen.checkpointed_layers,
        "offload": OFFLOADS.index(chosen.offload),
    }
    columns = Columns(**{name: np.array([value], dtype=np.int64) for name, value in values.items()})
    return scenario.variant(0), columns
