"""One search pass: a scenario's candidates enumerated, refused by rule, costed, and split by what fits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, cast

import numpy as np

from axoc.cost.columns import Bools, Floats, Ints
from axoc.cost.estimate import Costed, cost
from axoc.cost.scenario import Scenario
from axoc.cost.units import blocks_per_unit
from axoc.ir.candidate import Candidate
from axoc.ir.plan import Rejection, Scored
from axoc.ir.request import PlanRequest
from axoc.search.limits import DISK_FIX, HOST_FIX, NodeLimits, disk_reason, host_reason, node_limits
from axoc.search.rules import Context, Refusal, enforced_rules, refuse
from axoc.search.space import Combination, columns, combinations
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
    limits: NodeLimits = field(default_factory=NodeLimits)
    safety: float = 0.0
    blocks_per_unit: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Of each row."""

    def shortfall(self) -> Floats:
        """Device bytes by which each row misses its budget; negative where it fits."""
        limit = self.costed.capacity_bytes * (1 - self.safety)
        return self.costed.memory.device_used - limit

    def host_shortfall(self) -> Floats:
        return self.costed.memory.host.bytes - self.limits.host_bytes

    def disk_shortfall(self) -> Floats:
        return cast(Floats, sum(self.costed.memory.disk.values())) - self.limits.disk_bytes

    def worst_shortfall(self) -> Floats:
        """Bytes by which each row misses the limit that it misses most."""
        return cast(Floats, np.max([self.shortfall(), self.host_shortfall(), self.disk_shortfall()], axis=0))

    def fits(self) -> Bools:
        return self.worst_shortfall() <= 0

    def settle(self, row: int) -> None:
        """Replays a row. One that does not fit takes the rows with it that differ by a larger micro-batch alone."""
        self.costed.settle(row)
        memory, micro = self.costed.memory, self.costed.columns.micro_batch
        if self.shortfall()[row] > 0:
            alike = [combo is self.combinations[row] for combo in self.combinations]
            larger = np.array(alike) & (micro > micro[row]) & (memory.allocated >= memory.allocated[row])
            for column in (memory.reserved, memory.device_used):
                column[larger] = np.maximum(column[larger], column[row])

    def candidate(self, row: int) -> Candidate:
        columns_, scenario, combo = self.costed.columns, self.costed.scenario, self.combinations[row]
        made = make_candidate(scenario, combo, int(columns_.micro_batch[row]), int(columns_.accumulation[row]))
        return replace(made, blocks_per_unit=int(self.blocks_per_unit[row]))

    def scored(self, row: int) -> Scored:
        return Scored(candidate=self.candidate(row), estimate=self.costed.estimate(row))

    def rejection(self, row: int) -> Rejection:
        """Why a costed row does not fit."""
        estimate = self.costed.estimate(row)
        memory = estimate.memory
        short = float(self.shortfall()[row])
        rule, fix = "memory", MEMORY_FIX
        if short > 0:
            limit = memory.capacity_bytes * (1 - self.safety)
            reason = (
                f"needs {gib(memory.device_used_bytes)} of {gib(limit)} on the device "
                f"({gib(memory.capacity_bytes)} less {self.safety:.0%} kept free): {gib(short)} short, at its peak in {memory.peak_phase}"
            )
        elif self.host_shortfall()[row] > 0:
            rule, reason, fix = "host-memory", host_reason(memory, self.limits), HOST_FIX
        else:
            rule, reason, fix = "disk", disk_reason(memory, self.limits), DISK_FIX
        return Rejection(
            candidate=self.candidate(row),
            rule=rule,
            reason=reason,
            fix=fix,
            link=None,
            estimate=estimate,
        )


def make_candidate(whole: Scenario, combo: Combination, micro: int, accumulation: int) -> Candidate:
    scenario = whole.variant(combo.variant)
    return Candidate(
        strategy=combo.strategy,
        world_size=combo.world_size,
        data_parallel=combo.data_parallel,
        tensor_parallel=combo.tensor_parallel,
        replicate_degree=combo.replicate_degree,
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


def run_pass(request: PlanRequest, scenario: Scenario, capacity_bytes: int, total: int) -> Pass:
    """``total``: sequences a step."""
    found = judged(request, scenario)
    allowed = [c for c, refusal in found if refusal is None]
    table, rows = columns(request, allowed, total)
    reachable = set(map(id, rows))
    return Pass(
        costed=cost(scenario, table, capacity_bytes),
        combinations=rows,
        total=total,
        refused=[(c, refusal) for c, refusal in found if refusal is not None],
        impossible=[c for c in allowed if id(c) not in reachable],
        limits=node_limits(scenario.cluster),
        safety=request.policy.memory_safety,
        blocks_per_unit=blocks_per_unit(scenario, table),
    )


def judged(request: PlanRequest, scenario: Scenario) -> list[tuple[Combination, Refusal | None]]:
    """What the rules say of every combination, in each variant."""
    found, rules = combinations(request, scenario.cluster, scenario.model), enforced_rules()
    pairs = []
    for index, variant in enumerate(scenario.variants):
        context = Context(request=request, scenario=variant)
        own = [replace(c, variant=index) for c in found]
        pairs += [(c, refuse(rules, context, c)) for c in own]
    return pairs


def complexity(candidate_row: Pass, row: int) -> tuple[int, ...]:
    """How much machinery a row needs: what decides between candidates that are equally fast. Compilation is none: what it takes is
    in the run's time, and on a host slower than the profile's it gains what is not predicted."""
    c = candidate_row.costed.columns
    return (
        int(c.tensor_parallel[row]),
        int(c.replicate_degree[row]),
        int(c.offload[row]),
        int(c.strategy[row]),
        int(c.checkpointed_layers[row]),
        int(c.accumulation[row]),
    )
