"""The resume contract: with how many processes, and under which strategies, a run may go on from this plan's checkpoints.

Everywhere the same rows make up each step, so the processes must share the global batch evenly. The rest is what the
files are: whole ones that any rank loads (single, DDP), torch's DCP, which cuts tensors anew while loading (FSDP2), or one
partition a rank, which DeepSpeed's universal checkpoints regroup where the optimizer is Adam (deepspeed 0.19.8,
checkpoint/ds_to_universal.py: it converts fp32, exp_avg and exp_avg_sq, and no other state).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from axoc.ir.candidate import Candidate
from axoc.ir.plan import Plan

ADAM: Final = ("adamw_torch", "adamw_torch_fused")
"""Two moments a weight, of the weight's own shape: what can be cut anew. 8-bit states and factored ones cannot."""


@dataclass(frozen=True, kw_only=True)
class ResumeContract:
    strategies: tuple[str, ...]
    world_sizes: tuple[int, ...]
    """Processes, in ascending order; the plan's own is among them."""
    because: str


def resume_contract(plan: Plan) -> ResumeContract:
    chosen = plan.chosen.candidate
    fixed = _fixed(chosen)
    strategies = ("single", "ddp") if chosen.strategy in ("single", "ddp") else (chosen.strategy,)
    if fixed is not None:
        return ResumeContract(strategies=strategies, world_sizes=(chosen.world_size,), because=fixed)
    return ResumeContract(strategies=strategies, world_sizes=_sharing(chosen), because=_because(chosen))


def resume_dict(plan: Plan) -> dict[str, Any]:
    contract = asdict(resume_contract(plan))
    return contract | {k: list(v) for k, v in contract.items() if isinstance(v, tuple)}


def resume_sentence(plan: Plan) -> str:
    """For people."""
    contract = resume_contract(plan)
    sizes, strategies = ", ".join(map(str, contract.world_sizes)), " or ".join(contract.strategies)
    return f"with {sizes} processes under {strategies}: {contract.because}"


def _fixed(c: Candidate) -> str | None:
    """Why only this number of processes will do; None where others do too."""
    if c.tensor_parallel > 1:
        return "tensor-parallel shards are of this division of the ranks"
    if c.strategy.startswith("zero") and c.optimizer not in ADAM:
        return f"DeepSpeed regroups the states of Adam alone, and {c.optimizer} keeps others"
    if c.strategy == "fsdp" and c.optimizer not in ADAM:
        return f"{c.optimizer} keeps states of other shapes than the weights', which no rank can cut anew"
    if c.strategy.startswith("zero") and c.offload != "none":
        return "states that ZeRO has offloaded are of this division of the ranks"
    return None


def _sharing(c: Candidate) -> tuple[int, ...]:
    total = c.global_batch_size
    return tuple(n for n in range(1, total + 1) if total % n == 0)


def _because(c: Candidate) -> str:
    how = {
        "single": "the files are whole, and every rank loads them",
        "ddp": "the files are whole, and every rank loads them",
        "fsdp": "torch's distributed checkpoints are cut anew while they are loaded",
    }.get(c.strategy, "DeepSpeed's universal checkpoints regroup ZeRO's partitions")
    return f"{how}; {c.global_batch_size} sequences a step must be shared evenly"
