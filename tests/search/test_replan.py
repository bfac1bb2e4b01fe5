"""The same spec on other hardware trains the same, and the plan proves it by a digest."""

from __future__ import annotations

import pytest
from asking import plan
from axoc.emit.replan import training_contract
from axoc.ir.plan import Plan

INVENTORIES = (
    "h100-sxm-80gb",
    "h100-sxm-80gb:8",
    "a100-sxm-80gb:4",
    "h200-sxm-141gb:8x2",
    "l40s-48gb:8",
    "a10g-24gb:8x8",
)


ONE_WAY = {"model__kernels": "none", "model__compile": False}


def contract(inventory: str, **changes: object) -> dict[str, object]:
    found = plan("meta-llama/Llama-3.2-1B", inventory, dataset__validation_split=0.1, **ONE_WAY | changes)
    assert isinstance(found, Plan)
    return training_contract(found)


@pytest.mark.parametrize("batch", ["auto", 64, 128])
def test_every_inventory_keeps_batch_steps_and_schedule(batch: object) -> None:
    found = [contract(i, training__global_batch_size=batch) for i in INVENTORIES]
    assert all(c == found[0] for c in found)
    assert found[0]["global_batch_size"] == (64 if batch == "auto" else batch)
    assert found[0]["total_steps"] == -(-9_000 // int(str(found[0]["global_batch_size"])))
    assert found[0]["warmup_steps"] and found[0]["eval_steps"]


def test_the_splits_differ_though() -> None:
    splits = set()
    for inventory in INVENTORIES:
        found = plan("meta-llama/Llama-3.2-1B", inventory, **ONE_WAY)
        assert isinstance(found, Plan)
        c = found.chosen.candidate
        splits.add((c.data_parallel, c.micro_batch_size, c.gradient_accumulation_steps))
    assert len(splits) > 3


@pytest.mark.parametrize(
    "change",
    [
        {"training__learning_rate": 1e-4},
        {"training__lr_scheduler": "linear"},
        {"training__warmup_ratio": 0.1},
        {"training__max_steps": 7},
        {"training__global_batch_size": 32},
        {"training__eval_steps": 5},
        {"training__seed": 1},
        {"training__bf16_update": "stochastic"},
        {"dataset__train_on": "all"},
        {"dataset__weight": 2.0},
        {"model__dtype": "float32"},
        {"model__revision": "0" * 40},
        {"distributed__mixed_precision": "no"},
    ],
)
def test_another_training_has_another_digest(change: dict[str, object]) -> None:
    assert contract("h100-sxm-80gb", **change)["digest"] != contract("h100-sxm-80gb")["digest"]


def test_a_default_that_the_ranks_do_not_divide_is_seen_to_differ() -> None:
    assert contract("h100-sxm-80gb:3")["digest"] != contract("h100-sxm-80gb")["digest"]
    assert contract("h100-sxm-80gb:3")["global_batch_is_set"] is False
