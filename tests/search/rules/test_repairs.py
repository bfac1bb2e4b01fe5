"""What is left open is chosen around what would break, and a decision says so."""

from __future__ import annotations

import pytest
from asking import LORA, plan
from axoc.ir.plan import Decision, Plan
from axoc.ir.request import QuantizationRequest

QWEN, EIGHT = "Qwen/Qwen2.5-0.5B", "h100-sxm-80gb:8"
NF4 = QuantizationRequest(method="nf4")


def decided(result: object, field: str) -> Decision:
    assert isinstance(result, Plan), result
    (decision,) = [d for d in result.decisions if d.field == field]
    return decision


@pytest.mark.parametrize(
    ("changes", "field", "avoided", "rule"),
    [
        ({"training__optimizer": "adamw_bnb_8bit"}, "distributed.type", ["fsdp"], "fsdp-8bit-optimizer"),
        (
            {"adapter": LORA, "model__quantization": NF4},
            "distributed.type",
            ["fsdp", "zero3"],
            "quantized-base-sharded",
        ),
        ({"training__optimizer": "adafactor"}, "distributed.offload", ["optimizer"], "offload-needs-adam"),
        ({"distributed__offload": "optimizer"}, "distributed.type", ["ddp", "fsdp"], "offload-needs-zero"),
    ],
)
def test_auto_avoids_what_breaks_and_says_by_which_rule(
    changes: dict[str, object], field: str, avoided: list[str], rule: str
) -> None:
    decision = decided(plan(QWEN, EIGHT, **changes), field)
    assert decision.value not in avoided
    told = decision.because.partition(f"ruled out by {rule}: ")[2].partition(";")[0].split(", ")
    assert set(avoided) <= set(told)


def test_nothing_is_said_to_be_ruled_out_where_nothing_is() -> None:
    assert "ruled out" not in decided(plan(QWEN, EIGHT), "distributed.type").because


@pytest.mark.parametrize(
    ("rows", "evaluation", "save", "expected"),
    [
        (10_000, 7, "auto", 35),  # 9,000 rows over 64 a step: 141 steps, a quarter is 35
        (10_000, 30, "auto", 30),
        (10_000, 50, "auto", 50),  # longer than a quarter of the run
        (None, 7, "auto", 7),  # else at each epoch's end, and the evaluations by steps
        (10_000, 7, 21, 21),
        (10_000, "auto", 9, 9),
    ],
)
def test_early_stopping_saves_what_it_evaluates(
    rows: int | None, evaluation: int | str, save: int | str, expected: int
) -> None:
    made = plan(
        QWEN,
        EIGHT,
        rows,
        training__early_stopping_patience=2,
        training__eval_steps=evaluation,
        training__save_steps=save,
    )
    assert isinstance(made, Plan)
    assert made.schedule.eval_steps is not None and made.schedule.save_steps == expected
    assert expected % made.schedule.eval_steps == 0
    decision = decided(made, "training.save_steps")
    assert (decision.source == "rule:early-stopping-saves") is (save == "auto")


def test_without_early_stopping_the_two_are_free() -> None:
    made = plan(QWEN, EIGHT, training__eval_steps=9)
    assert isinstance(made, Plan)
    assert (made.schedule.eval_steps, made.schedule.save_steps) == (9, 35)
