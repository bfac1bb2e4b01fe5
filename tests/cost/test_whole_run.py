"""The whole run: its items add up, each follows what it depends on, and money follows all of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from asking import LORA, facts, plan, request
from axoc.cost import whole_run
from axoc.emit.job import job_dict
from axoc.facts.inventory import parse_inventory
from axoc.ir.estimate import TimeEstimate
from axoc.ir.facts import DataFacts
from axoc.ir.plan import NoPlan, Plan
from axoc.search.choose import search

MODEL = "Qwen/Qwen2.5-0.5B"


def time_of(rows: int | None = 10_000, inventory: str = "h100-sxm-80gb:8", **changes: object) -> TimeEstimate:
    found = plan(MODEL, inventory, rows, **changes)
    assert isinstance(found, Plan)
    return found.chosen.estimate.time


def items(time: TimeEstimate) -> dict[str, float]:
    return {i.item: i.seconds for i in time.run_breakdown}


def test_the_items_add_up_to_the_run_and_each_says_what_it_rests_on() -> None:
    time = time_of(dataset__validation_split=0.1)
    assert time.total_seconds == pytest.approx(sum(i.seconds for i in time.run_breakdown))
    assert items(time)["training"] == pytest.approx(time.step_seconds * (time.total_steps or 0))
    assert {"environment", "model load", "training", "evaluation", "checkpoints", "final model"} <= set(items(time))
    assert all(i.source for i in time.run_breakdown)


def test_dollars_are_those_of_every_device_for_the_whole_run() -> None:
    time, (cluster,) = time_of(), parse_inventory("h100-sxm-80gb:8", None, None)
    price = cluster.price_usd_per_accelerator_hour
    assert price is not None and time.total_seconds is not None
    assert time.cost_usd == pytest.approx(time.total_seconds / 3600 * 8 * price)
    assert time.cost_usd > price * 8 * items(time)["training"] / 3600


def test_evaluation_follows_the_held_out_rows_and_the_schedule() -> None:
    assert "evaluation" not in items(time_of(dataset__validation_split=0.0))
    same = {"dataset__validation_split": 0.1, "training__max_steps": 100, "training__micro_batch_size": 8}
    few, often = (time_of(**same, model__kernels="none", training__eval_steps=n) for n in (100, 10))
    assert items(often)["evaluation"] == pytest.approx(
        items(few)["evaluation"] * 12 / 3
    )  # two more than within the run
    assert items(often)["evaluation"] > 0
    sampled = time_of(**same, model__kernels="none", training__eval_steps=10, training__eval_rows=100)
    whole = items(few)["evaluation"] / 3  # all 1,000 rows, 16 batches of 8 on each of 8 devices
    assert items(sampled)["evaluation"] == pytest.approx(2 * whole + 10 * whole * 2 / 16)


def test_a_forward_pass_is_the_smaller_part_of_a_micro_step() -> None:
    time = time_of(dataset__validation_split=0.5, training__max_steps=100, training__eval_steps=100)
    forward_of_all_rows = items(time)["evaluation"] / 3  # 5,000 rows once
    trained_rows_a_second = 64 / time.step_seconds
    assert 0.15 < forward_of_all_rows / (5_000 / trained_rows_a_second) < 0.6


def test_checkpoints_follow_their_number_and_size() -> None:
    full = items(time_of(training__max_steps=100, training__save_steps=50))["checkpoints"]
    assert items(time_of(training__max_steps=100, training__save_steps=10))["checkpoints"] == pytest.approx(5 * full)
    assert items(time_of(training__max_steps=100, training__save_steps=50, adapter=LORA))["checkpoints"] < full / 10


def test_tokenization_follows_the_datas_bytes() -> None:
    made = request(MODEL)
    known = facts(made, "h100-sxm-80gb")
    data = (DataFacts(path="data/train.jsonl", rows=1000, bytes=500_000_000),)
    found = search(made, replace(known, data=data))
    assert isinstance(found, Plan)
    seconds = items(found.chosen.estimate.time)["tokenization"]
    assert seconds == pytest.approx(500_000_000 / whole_run.TOKENIZED_BYTES_PER_SECOND)


def test_the_job_is_told_what_it_can_measure_itself() -> None:
    found = plan(MODEL, "h100-sxm-80gb", dataset__validation_split=0.1)
    assert isinstance(found, Plan)
    time, told = found.chosen.estimate.time, job_dict(found)["prediction"]
    own = sum(s for i, s in items(time).items() if i not in whole_run.BEFORE_PROCESSES)
    assert told["total_seconds"] == pytest.approx(own) and own < (time.total_seconds or 0)
    assert told["cost_usd"] / told["total_seconds"] == pytest.approx((time.cost_usd or 0) / (time.total_seconds or 1))


def test_without_a_length_only_the_start_is_known() -> None:
    time = time_of(rows=None)
    assert time.total_seconds is None and time.cost_usd is None and time.spot_cost_usd is None
    assert set(items(time)) <= {*whole_run.START_UP, "compilation"} and items(time)


def test_the_users_prices_replace_the_catalogs() -> None:
    text = "version: 1\nkinds:\n  - {accelerator: h100-sxm-80gb, price_per_hour_usd: 2%s}\n"
    (own,) = parse_inventory("i.yaml", text % "", "i.yaml")
    assert own.price_usd_per_accelerator_hour == 2 and own.spot_price_usd_per_accelerator_hour is None
    (both,) = parse_inventory("i.yaml", text % ", spot_price_per_hour_usd: 1.5", "i.yaml")
    assert (both.spot_price_usd_per_accelerator_hour, both.spot_price_source) == (1.5, "inventory i.yaml")
    (catalog,) = parse_inventory("h100-sxm-80gb", None, None)
    assert catalog.spot_price_usd_per_accelerator_hour and "2026-03" in catalog.spot_price_source


def test_a_batch_that_no_ranks_can_share_is_no_plan() -> None:
    found = plan("google/gemma-2-9b", "h100-sxm-80gb:2", training__global_batch_size=1, dataset__validation_split=0.1)
    assert isinstance(found, NoPlan)
