"""The margin: what it says fits does, the next value does not, and moving a knob the harder way never needs less."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from asking import LORA, facts, plan, request
from axoc.cost.columns import STRATEGIES, Columns
from axoc.cost.margin import Room, fits, knob_margins, knobs, one_row
from axoc.cost.memory import GROWTH_BYTES, memory
from axoc.cost.scenario import Scenario
from axoc.emit.margin import margin_sentence
from axoc.ir.margin import KnobMargin, Margin
from axoc.ir.plan import NoPlan, Plan
from axoc.ir.request import QuantizationRequest
from axoc.search.choose import all_passes, scenarios
from axoc.search.passes import judged
from axoc.search.space import columns
from hypothesis import given, settings
from hypothesis import strategies as st
from sharing import costed_once

__all__ = ["costed_once"]

MODELS = ("Qwen/Qwen2.5-0.5B", "meta-llama/Llama-3.2-1B", "google/gemma-2-2b", "EleutherAI/pythia-1.4b")
WIDE = Room(device_bytes=float("inf"), host_bytes=float("inf"), disk_bytes=float("inf"))


def costed(model: str, inventory: str = "h100-sxm-80gb:8", **changes: Any) -> Any:
    made = request(model, **changes)
    return all_passes(made, facts(made, inventory))[0].costed


def uncosted(model: str, inventory: str = "h100-sxm-80gb:8", **changes: Any) -> tuple[Scenario, Columns]:
    made = request(model, **changes)
    scenario, total = scenarios(made, facts(made, inventory))[0]
    return scenario, columns(made, [c for c, refusal in judged(made, scenario) if refusal is None], total)[0]


def needs(knob: Any, value: int) -> float:
    return float(memory(*knob.at([value])).device_used[0])


def cut(scenario: Any, knob: Any) -> float:
    """ZeRO-1 and 2 keep whole the gradients that a rank's borders cut through, so that one rank more may keep a vocabulary
    matrix more; twice where micro-batches accumulate."""
    planned = knob.at(knob.values[:1])[1]
    if knob.field != "distributed.gpu_count" or not planned.uses("zero1", "zero2")[0] or not scenario.is_full:
        return 0.0
    return float(2 * 2 * scenario.sizes.vocabulary_matrix)


def fetched(scenario: Any, knob: Any, value: int) -> float:
    """ZeRO-3 fetches ahead what its bucket holds: of an adapter's matrices of a higher rank that may be one fewer, and a page less of
    reserved memory (gemma-2-2b, rank 2,172 after 2,171)."""
    planned = knob.at(knob.values[:1])[1]
    if knob.field != "adapter.rank" or not planned.uses("zero3")[0]:
        return 0.0
    return float(2 * value * scenario.sizes.vocabulary_matrix / scenario.model.vocab_size + GROWTH_BYTES)


@settings(max_examples=25)
@given(
    model=st.sampled_from(MODELS),
    lora=st.booleans(),
    kernels=st.sampled_from(["none", "liger"]),
    seq=st.integers(1, 60).map(lambda n: n * 64),
    row=st.integers(0, 10_000),
    share=st.floats(0.02, 0.98),
)
def test_no_knob_needs_less_when_it_is_turned_the_harder_way(
    model: str, lora: bool, kernels: str, seq: int, row: int, share: float
) -> None:
    """What bisecting relies on, at random pairs of neighbours."""
    scenario, space = uncosted(model, adapter=LORA if lora else None, dataset__max_seq_length=seq)
    scenario = replace(scenario, kernels=kernels)
    for knob in knobs(scenario, one_row(space, row % len(space))):
        if len(knob.values) > 1:
            at = int(share * (len(knob.values) - 1))
            alone = knob.values[at + 1] == 1
            if knob.field == "distributed.gpu_count" and (alone or knob.at(knob.values[:1])[1].uses("fsdp")[0]):
                continue  # a rank alone gathers and reduces nothing; FSDP's units follow the ranks, which are all tried
            less = cut(scenario, knob) + fetched(scenario, knob, knob.values[at + 1])
            assert needs(knob, knob.values[at]) <= needs(knob, knob.values[at + 1]) + less, knob.label


@settings(max_examples=10)
@given(
    model=st.sampled_from(MODELS),
    lora=st.booleans(),
    gpus=st.sampled_from([1, 4, 8]),
    room=st.floats(0.0, 1.5),
    row=st.integers(0, 10_000),
)
def test_what_is_said_to_fit_fits_and_the_next_value_does_not(
    model: str, lora: bool, gpus: int, room: float, row: int
) -> None:
    scenario, space = uncosted(model, f"h100-sxm-80gb:{gpus}", adapter=LORA if lora else None)
    one = one_row(space, row % len(space))
    limits = replace(WIDE, device_bytes=float(memory(scenario, one).device_used[0]) * (1 + room))
    by_field = {k.field: k for k in knobs(scenario, one)}
    for said in knob_margins(scenario, one, 0, limits):
        knob = by_field[said.field]
        assert fits(*knob.at([said.fits_to]), limits)[0]
        if said.breaks_at is None:
            assert said.fits_to == knob.values[-1]
        else:
            assert not fits(*knob.at([said.breaks_at]), limits)[0]
            assert knob.values.index(said.breaks_at) == knob.values.index(said.fits_to) + 1


def test_every_value_is_tried_as_a_whole_for_one_plan() -> None:
    """All values at once, and bisecting, against looking at each micro-batch in turn."""
    found = costed("meta-llama/Llama-3.2-1B", "h100-sxm-80gb")
    limits = replace(WIDE, device_bytes=40e9)
    tried = range(1, 65)
    row = next(r for r in range(len(found.columns)) if fits(found.scenario, one_row(found.columns, r), limits)[0])
    (knob,) = (k for k in knobs(found.scenario, one_row(found.columns, row)) if k.label == "micro-batch")
    (said,) = (k for k in knob_margins(found.scenario, found.columns, row, limits) if k.label == "micro-batch")
    assert said.fits_to == max(v for v in tried if v in knob.values and fits(*knob.at([v]), limits)[0]) < tried[-1]


def test_more_room_never_moves_a_limit_closer() -> None:
    found = costed("meta-llama/Llama-3.2-1B", "h100-sxm-80gb:8")
    row = list(found.columns.strategy).index(STRATEGIES.index("zero3"))
    used = float(found.memory.device_used[row])
    all_said = [
        knob_margins(found.scenario, found.columns, row, replace(WIDE, device_bytes=used * factor))
        for factor in (1.0, 1.2, 1.5, 2.0, 4.0)
    ]
    for tight, roomy in pairwise(all_said):
        for a, b in zip(tight, roomy, strict=True):
            assert a.fits_to >= b.fits_to if a.falls or b.falls else a.fits_to <= b.fits_to


def test_the_host_breaks_a_knob_too() -> None:
    """A higher rank is more to merge and to save: where the host has no room, it is the host that says no."""
    found = costed("meta-llama/Meta-Llama-3-8B", "h100-sxm-80gb", adapter=LORA)
    limits = replace(WIDE, host_bytes=float(found.memory.host.bytes[0]) + 1)
    (rank,) = (k for k in knob_margins(found.scenario, found.columns, 0, limits) if k.field == "adapter.rank")
    assert rank.breaks_at is not None and rank.fits_to < 100


@pytest.mark.parametrize(
    ("model", "inventory", "seq", "fixed"),
    [
        ("meta-llama/Llama-3.2-1B", "a100-sxm-40gb", 8192, {"micro_batch_size": 2}),
        ("Qwen/Qwen3-8B", "h100-sxm-80gb:4", 4096, {"micro_batch_size": 1, "type": "zero1"}),
        (
            "HuggingFaceTB/SmolLM2-135M",
            "cpu",
            128,
            {"micro_batch_size": 8, "mixed_precision": "no", "dtype": "float32"},
        ),
    ],
)
def test_the_planner_itself_refuses_what_breaks_first_and_not_the_value_before(
    model: str, inventory: str, seq: int, fixed: dict[str, Any]
) -> None:
    """It replays what it would choose, and so must the margin: the quick account took each of these for a step too long."""
    parts = {"micro_batch_size": "training", "type": "distributed", "mixed_precision": "distributed", "dtype": "model"}
    wanted: dict[str, Any] = {f"{parts[name]}__{name}": value for name, value in fixed.items()} | {
        "training__gradient_accumulation_steps": 4,
        "training__gradient_checkpointing": "none",
        "distributed__offload": "none",
    }
    found = plan(model, inventory, dataset__max_seq_length=seq, **wanted)
    assert isinstance(found, Plan) and found.margin is not None
    c, first = found.chosen.candidate, found.margin.first_to_break
    assert first is not None and first.breaks_at is not None
    same = wanted | {f"model__{name}": getattr(c, name) for name in ("attention", "kernels", "compile")}
    same |= {"dataset__packing": c.packing, "dataset__max_seq_length": seq}
    knob_ = first.field.replace(".", "__")
    last = plan(model, inventory, **same | {knob_: first.fits_to})
    assert isinstance(last, Plan)
    assert isinstance(plan(model, inventory, **same | {knob_: first.breaks_at}), NoPlan)
    drawn = {p.value: p.device_used_bytes for p in first.curve}
    assert not drawn or drawn[first.fits_to] == last.chosen.estimate.memory.device_used_bytes


def test_what_nodes_usually_have_breaks_nothing() -> None:
    """An 8B model is merged in more than the 16 GiB that a node with one L4 usually has: planned with a warning, at any rank."""
    nf4 = QuantizationRequest(method="nf4")
    found = plan("meta-llama/Meta-Llama-3-8B", "l4-24gb", adapter=LORA, model__quantization=nf4)
    assert isinstance(found, Plan) and found.margin is not None
    (rank,) = (k for k in found.margin.knobs if k.field == "adapter.rank")
    assert rank.fits_to > rank.value == 16


def knob(label: str, value: int, fits_to: int, breaks_at: int | None) -> KnobMargin:
    return KnobMargin(field=label, label=label, value=value, fits_to=fits_to, breaks_at=breaks_at)


@pytest.mark.parametrize(
    ("knobs_", "first"),
    [
        ((knob("a", 2048, 9216, 9280), knob("b", 1, 4, 5), knob("c", 16, 576, None)), "a"),
        ((knob("a", 100, 900, 901), knob("accelerators", 8, 3, 2)), "accelerators"),
        ((knob("a", 100, 900, None),), None),
    ],
)
def test_the_first_to_break_is_the_nearest_in_relative_terms(knobs_: Any, first: str | None) -> None:
    margin = Margin(free_bytes=0, kept_free=0.03, host_free_bytes=None, disk_free_bytes=None, knobs=knobs_)
    assert (margin.first_to_break.field if margin.first_to_break else None) == first


def test_the_sentence_says_what_the_plan_says() -> None:
    made = plan("meta-llama/Meta-Llama-3-8B", "h100-sxm-80gb", adapter=LORA)
    assert isinstance(made, Plan) and made.margin is not None
    sentence = margin_sentence(made)
    first = made.margin.first_to_break
    assert first is not None and sentence.startswith("fits by ") and "beyond the 3% kept free" in sentence
    assert f"first to break: {first.label} above {first.fits_to:,} (±" in sentence
    assert f"on {made.chosen.estimate.memory_error_rows} measured rows" in sentence
