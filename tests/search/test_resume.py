"""The resume contract: which other plans may go on from this one's checkpoints."""

from __future__ import annotations

from typing import Any

import pytest
from axoc.emit.job import job_dict
from axoc.emit.plan_json import plan_dict
from axoc.ir.plan import Plan
from axoc.search.resume import resume_contract, resume_sentence
from emit.plans import cpu_ddp_lora, with_candidate


def planned(**changes: Any) -> Plan:
    return with_candidate(cpu_ddp_lora(), **changes)


SHAPE = {
    "world_size": 4,
    "data_parallel": 4,
    "tensor_parallel": 1,
    "micro_batch_size": 3,
    "gradient_accumulation_steps": 1,
}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "zero1", "zero2", "zero3"])
def test_adams_states_go_on_wherever_the_global_batch_is_shared_evenly(strategy: str) -> None:
    plan = planned(strategy=strategy, optimizer="adamw_torch_fused", offload="none", **SHAPE)
    contract = resume_contract(plan)
    assert contract.world_sizes == (1, 2, 3, 4, 6, 12)
    assert contract.strategies == (("single", "ddp") if strategy == "ddp" else (strategy,))
    assert "12 sequences a step" in contract.because


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"strategy": "zero2", "optimizer": "adafactor"}, "states of Adam alone, and adafactor"),
        ({"strategy": "fsdp", "optimizer": "adamw_bnb_8bit"}, "adamw_bnb_8bit keeps states of other shapes"),
        ({"strategy": "zero2", "optimizer": "adamw_torch", "offload": "optimizer"}, "offloaded"),
    ],
)
def test_what_only_its_own_processes_can_resume(changes: dict[str, Any], because: str) -> None:
    contract = resume_contract(planned(**SHAPE, **({"offload": "none"} | changes)))
    assert contract.world_sizes == (4,) and because in contract.because


def test_whole_files_go_on_with_any_optimizer() -> None:
    contract = resume_contract(planned(strategy="ddp", optimizer="adafactor", offload="none", **SHAPE))
    assert contract.world_sizes == (1, 2, 3, 4, 6, 12)


def test_job_plan_and_people_are_told_the_same() -> None:
    plan = cpu_ddp_lora()
    contract = resume_contract(plan)
    told = {
        "strategies": list(contract.strategies),
        "world_sizes": list(contract.world_sizes),
        "because": contract.because,
    }
    assert job_dict(plan)["resume"] == plan_dict(plan)["resume"] == told
    assert contract.because in resume_sentence(plan)
