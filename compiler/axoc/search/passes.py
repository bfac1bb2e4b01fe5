"""One search pass: a scenario's candidates enumerated, refused by rule, costed, and split by what fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from axoc.cost.columns import Bools, Floats
from axoc.cost.estimate import Costed, cost
from axoc.cost.scenario import Scenario
from axoc.ir.candidate import Candidate
from axoc.ir.plan import Rejection, Scored
from axoc.ir.request import PlanRequest
from axoc.search.rules import Context, Refusal, enforced_rules, refuse
from axoc.search.space import Combination, columns, combinations, shared_global_batch
from axoc.units import gib

MEMORY_FIX: Final = "a smaller micro-batch, more checkpointing, sharding or offload; see the candidates that fit"


@dataclass(frozen=True, kw_only=True)
class Pass:
    """The costed rows of one scenario, and what never became a row."""

    costed: Costed
    combinations: list[Combination]
    """The combination of each row."""
    total: int
    """Sequences a step."""
    refused: list[tuple[Combination, Refusal]] = field(default_factory=list)
    impossible: list[Combination] = field(default_factory=list)
    """Combinations for which the batch arithmetic has no solution."""
    host_capacity_bytes: int = 0
    safety: float = 0.0

    def shortfall(self) -> Floats:
        """Device bytes by which each row misses its budget; negative where it fits."""
        limit = self.costed.capacity_bytes * (1 - self.safety)
        return self.costed.memory.device_used - limit

    def host_shortfall(self) -> Floats:
        return self.costed.memory.host - self.host_capacity_bytes

    def fits(self) -> Bools:
        return (self.shortfall() <= 0) & (self.host_shortfall() <= 0)

    def candidate(self, row: int) -> Candidate:
        columns_, scenario, combo = self.costed.columns, self.costed.scenario, self.combinations[row]
        return make_candidate(scenario, combo, int(columns_.micro_batch[row]), int(columns_.accumulation[row]))

    def scored(self, row: int) -> Scored:
        return Scored(candidate=self.candidate(row), estimate=self.costed.estimate(row))

    def rejection(self, row: int) -> Rejection:
        """Why a costed row does not fit."""
        estimate = self.costed.estimate(row)
        memory = estimate.memory
        short, host_short = float(self.shortfall()[row]), float(self.host_shortfall()[row])
        if short > 0:
            limit = memory.capacity_bytes * (1 - self.safety)
            reason = (
                f"needs {gib(memory.device_used_bytes)} of {gib(limit)} on the device "
                f"({gib(memory.capacity_bytes)} less {self.safety:.0%} kept free): {gib(short)} short, at its peak in {memory.peak_phase}"
            )
        else:
            reason = f"needs {gib(memory.host_bytes)} of host memory on each node, {gib(host_short)} more than there is"
        return Rejection(
            candidate=self.candidate(row),
            rule="memory" if short > 0 else "host-memory",
            reason=reason,
            fix=MEMORY_FIX,
            link=None,
            estimate=estimate,
        )


def make_candidate(scenario: Scenario, combo: Combination, micro: int, accumulation: int) -> Candidate:
    return Candidate(
        strategy=combo.strategy,
        world_size=combo.world_size,
        data_parallel=combo.data_parallel,
        tensor_parallel=combo.tensor_parallel,
        micro_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        gradient_checkpointing=combo.checkpointing,
        checkpointed_layers=combo.checkpointed_layers,
        attention=scenario.attention,
        kernels=scenario.kernels,
        compile=scenario.compile,
        packing=scenario.packing,
        optimizer=scenario.optimizer,
        offload=combo.offload,
        quantization=scenario.quantization,
        dtype=scenario.dtype,
        mixed_precision=scenario.mixed_precision,
        accelerator=scenario.cluster.accelerator.name,
    )


def run_pass(request: PlanRequest, scenario: Scenario, capacity_bytes: int) -> Pass:
    found = combinations(request, scenario.cluster, scenario.model)
    total = shared_global_batch(request, scenario.cluster, found)
    context = Context(request=request, scenario=scenario)
    rules = enforced_rules()
    judged = [(c, refuse(rules, context, c)) for c in found]
    allowed = [c for c, refusal in judged if refusal is None]
    table, rows = columns(request, allowed, total)
    reachable = set(map(id, rows))
    return Pass(
        costed=cost(scenario, table, capacity_bytes),
        combinations=rows,
        total=total,
        refused=[(c, refusal) for c, refusal in judged if refusal is not None],
        impossible=[c for c in allowed if id(c) not in reachable],
        host_capacity_bytes=scenario.cluster.host_memory_bytes,
        safety=request.policy.memory_safety,
    )


def complexity(candidate_row: Pass, row: int) -> tuple[int, ...]:
    """How much machinery a row needs: what decides between candidates that are equally fast."""
    c = candidate_row.costed.columns
    return (
        int(c.tensor_parallel[row]),
        int(c.offload[row]),
        int(c.strategy[row]),
        int(c.checkpointed_layers[row]),
        int(c.accumulation[row]),
    )
