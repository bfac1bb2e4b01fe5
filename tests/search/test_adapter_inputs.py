"""Casts of adapters' inputs are left out where they are for nothing; the plan counts on it, and tells."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from asking import LORA, facts, plan, request
from axoc.cost.activations import activations
from axoc.cost.columns import OFFLOADS, STRATEGIES, Columns
from axoc.cost.scenario import Scenario
from axoc.cost.time import step_time
from axoc.emit.job import job_dict
from axoc.emit.plan_json import plan_dict
from axoc.ir.plan import Plan
from axoc.ir.request import QuantizationRequest
from axoc.review.explain import as_text
from axoc.search.adapter_inputs import scales_between
from axoc.search.choose import scenarios

FIELD = "adapter.casts_inputs"
LLAMA = "meta-llama/Llama-3.2-1B"
TOKENS = 512.0
NF4 = QuantizationRequest(method="nf4")


@pytest.mark.parametrize(
    ("changes", "inventory", "casts", "why"),
    [
        ({}, "h100-sxm-80gb", False, "the same to the last bit"),
        ({"adapter": replace(LORA, dropout=0.1)}, "h100-sxm-80gb", False, "but for the numbers that dropout draws"),
        ({"adapter": replace(LORA, dropout=0.1)}, "cpu", True, "rounds its factor"),
        ({"adapter": replace(LORA, use_dora=True)}, "h100-sxm-80gb", True, "DoRA takes the norm"),
        ({"model__quantization": NF4}, "h100-sxm-80gb", False, "PEFT casts no input"),
        ({"distributed__type": "ddp"}, "h100-sxm-80gb:2", False, "the same to the last bit"),
        ({"distributed__type": "fsdp"}, "h100-sxm-80gb:2", True, "without autocast"),
        ({"distributed__type": "zero2"}, "h100-sxm-80gb:2", True, "without autocast"),
        ({"distributed__mixed_precision": "no", "model__dtype": "float32"}, "cpu", True, "without autocast"),
    ],
)
def test_casts_are_left_out_where_autocast_undoes_them(
    changes: dict[str, Any], inventory: str, casts: bool, why: str
) -> None:
    found = plan(LLAMA, inventory, **{"adapter": LORA, **changes})
    assert isinstance(found, Plan)
    (decision,) = [d for d in found.decisions if d.field == FIELD]
    assert decision.value is casts and why in decision.because
    assert job_dict(found)["adapter"]["casts_inputs"] is casts
    shown = "adapters take their inputs as they come" in " ".join(as_text(plan_dict(found)).split())
    assert shown is not casts


@pytest.mark.parametrize(
    ("changed", "quantization", "between"),
    [
        ({}, "none", True),
        ({"alpha": 8.0}, "none", True),
        ({"alpha": 24.0}, "none", False),
        ({"use_rslora": True}, "none", True),
        ({"use_rslora": True, "rank": 8}, "none", False),
        ({"use_dora": True}, "none", False),
        ({}, "nf4", False),
    ],
)
def test_a_factor_stands_between_where_it_changes_no_digit(
    changed: dict[str, Any], quantization: str, between: bool
) -> None:
    assert scales_between(replace(LORA, **changed), quantization) is between


def test_a_factor_between_costs_less_time_and_memory() -> None:
    """The product with it, and its gradient's, were as wide as each layer's output."""
    found = scenario()
    assert found.scales_between
    after = replace(found, scales_between=False)
    more, less = (float(step_time(s, row()).breakdown["memory-bound kernels"][0]) for s in (after, found))
    assert more > 1.1 * less
    assert kept(after) == kept(found), "neither is saved"


def test_a_plan_without_an_adapter_says_nothing_of_it() -> None:
    found = plan(LLAMA, "h100-sxm-80gb")
    assert isinstance(found, Plan) and not [d for d in found.decisions if d.field == FIELD]
    assert job_dict(found)["adapter"] is None


def scenario(**changes: Any) -> Scenario:
    made = request(LLAMA, adapter=LORA, **changes)
    base = scenarios(made, facts(made, "h100-sxm-80gb"))[0][0].variant(0)
    return replace(base, kernels="liger", attention="sdpa", compile=False, packing=False)


def row() -> Columns:
    values = dict.fromkeys(Columns.__dataclass_fields__, 1) | {"checkpointed_layers": 0, "variant": 0}
    values |= {"strategy": STRATEGIES.index("single"), "offload": OFFLOADS.index("none")}
    return Columns(**{name: np.array([value]) for name, value in values.items()})


def kept(s: Scenario) -> float:
    return float(activations(s, row(), np.array([TOKENS])).plain[0])


def test_one_input_is_kept_where_each_adapter_kept_its_own() -> None:
    """Query, key and value have one input, gate and up another; that of the output is attention's, which keeps it anyway."""
    without = scenario()
    assert not without.casts_inputs
    copies, hidden, bf16 = 2 + 1 + 1, 2048, 2
    less = without.model.num_layers * copies * hidden * bf16 * TOKENS
    assert kept(replace(without, casts_inputs=True)) - kept(without) == pytest.approx(less, rel=1e-9)
    assert kept(replace(scenario(model__quantization=NF4), casts_inputs=True)) == kept(
        scenario(model__quantization=NF4)
    )


def test_steps_are_faster_by_the_casts_alone() -> None:
    """Two of each input and of its gradient: at least what they move."""
    without = scenario()
    with_them = replace(without, casts_inputs=True)
    times = [step_time(s, row()) for s in (with_them, without)]
    assert float(times[1].step_seconds[0]) < 0.99 * float(times[0].step_seconds[0])
    products = [float(t.breakdown["matrix products"][0]) for t in times]
    assert products[0] == products[1]
