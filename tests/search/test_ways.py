"""Packing, attention, kernels and compilation are chosen together with everything else, and each choice says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from asking import LORA, facts, plan, request
from axoc.cost.lengths import of_mean
from axoc.ir.facts import DataFacts
from axoc.ir.plan import Decision, NoPlan, Plan
from axoc.ir.request import PreferenceRequest, QuantizationRequest
from axoc.search.choose import all_passes, scenarios, search, settled
from axoc.search.objective import objective, seconds
from hypothesis import given, settings
from hypothesis import strategies as st

LLAMA = "meta-llama/Llama-3.2-1B"
WAYS = ("packing", "attention", "kernels", "compile")


def chosen(result: Plan | NoPlan) -> Plan:
    assert isinstance(result, Plan), result
    return result


def decision(found: Plan, field: str) -> Decision:
    return next(d for d in found.decisions if d.field == field)


def way(found: Plan) -> tuple[Any, ...]:
    return tuple(getattr(found.chosen.candidate, name) for name in WAYS)


@pytest.mark.parametrize(
    ("model", "inventory", "changes", "packed", "why"),
    [
        (LLAMA, "h100-sxm-80gb", {}, True, "not known"),
        ("mistralai/Mistral-7B-v0.1", "h100-sxm-80gb", {"adapter": LORA}, True, "not known"),
        ("google/gemma-2-2b", "h100-sxm-80gb", {}, False, "cannot cap scores"),
        ("EleutherAI/pythia-1.4b", "h100-sxm-80gb", {}, True, "not known"),
        ("gpt2", "h100-sxm-80gb", {"dataset__max_seq_length": 1024}, False, "no dropout"),
        (LLAMA, "cpu", {"dataset__max_seq_length": 1024}, False, "one by one"),
        (LLAMA, "h100-sxm-80gb", {"model__dtype": "float32", "distributed__mixed_precision": "no"}, False, "16 bits"),
        (LLAMA, "h100-sxm-80gb", {"model__attention": "sdpa"}, False, "sdpa does not keep"),
        (LLAMA, "h100-sxm-80gb", {"dataset__packing": False}, False, "set in the spec"),
        (
            LLAMA,
            "h100-sxm-80gb",
            {"training__objective": "orpo", "training__preference": PreferenceRequest(beta=0.1)},
            False,
            "objective orpo",
        ),
    ],
)
def test_packing_is_chosen_only_where_documents_can_be_kept_apart(
    model: str, inventory: str, changes: dict[str, Any], packed: bool, why: str
) -> None:
    if why == "set in the spec":
        changes = changes | {"explicit": frozenset({"dataset.packing"})}
    found = chosen(plan(model, inventory, **changes))
    assert found.chosen.candidate.packing is packed
    hopper = "flash_attention_4" if inventory.startswith("h100") else "varlen"
    assert (found.chosen.candidate.attention == hopper) is packed
    assert why in decision(found, "dataset.packing").because


def told(model: str, tokens: float, inventory: str = "h100-sxm-80gb", steps: int = 5000, **changes: Any) -> Plan:
    made = request(model, dataset__mean_tokens=tokens, training__max_steps=steps, **changes)
    return chosen(search(made, facts(made, inventory)))


def test_short_rows_are_packed_and_full_ones_are_not() -> None:
    """Full rows leave nothing to pack, and the kernels that take them are faster; on Hopper flash attention 4, which takes documents,
    is faster still: 0.69 ms against cuDNN's 0.79 for four rows of 2,048 with heads of 64 (tables of the H100's profile)."""
    short, full = told(LLAMA, 300, "a100-sxm-80gb"), told(LLAMA, 2048, "a100-sxm-80gb")
    assert short.chosen.candidate.packing and not full.chosen.candidate.packing
    assert decision(short, "dataset.packing").source == decision(full, "model.attention").source == "search"
    assert "padding" in decision(short, "dataset.packing").because
    assert short.chosen.estimate.time.padding_share == pytest.approx(0.02, abs=0.005)


def test_on_a_cpu_too_where_rows_are_known_to_be_short() -> None:
    assert told("HuggingFaceTB/SmolLM2-135M", 100, "cpu").chosen.candidate.packing


def test_compilation_is_chosen_once_the_run_is_long_enough_to_pay_for_it() -> None:
    def compiled(steps: int) -> bool:
        small = {"training__micro_batch_size": 1, "training__global_batch_size": 8, "dataset__validation_split": 0.0}
        return told("Qwen/Qwen2.5-0.5B", 2048, steps=steps, **small).chosen.candidate.compile

    assert compiled(20_000) and not compiled(5)
    unknown = chosen(plan("Qwen/Qwen2.5-0.5B", "h100-sxm-80gb", None))
    assert "steps pay for" in decision(unknown, "model.compile").because
    mixture = chosen(plan("mistralai/Mixtral-8x7B-v0.1", "h100-sxm-80gb:8", adapter=LORA))
    assert decision(mixture, "model.compile").source == "rule:compile-by-request"


def test_kernels_are_compared_and_what_does_not_go_together_is_refused() -> None:
    split = {"distributed__model_parallel_size": "auto"}
    found = chosen(plan("meta-llama/Meta-Llama-3-8B", "h100-sxm-80gb:8", None, **split))
    assert found.chosen.candidate.kernels in ("liger", "chunked")
    assert "the best plan with" in decision(found, "model.kernels").because
    assert all(c.candidate.tensor_parallel == 1 or c.candidate.kernels == "none" for c in found.candidates)
    assert {"tensor-parallel-kernels"} <= {r.rule for r in found.rejections}


def test_the_chunked_loss_is_what_families_without_liger_get() -> None:
    found = chosen(plan("EleutherAI/pythia-1.4b", "h100-sxm-80gb", training__global_batch_size=64))
    assert {c.candidate.kernels for c in found.candidates} <= {"none", "chunked"}


@settings(max_examples=12)
@given(
    model=st.sampled_from([LLAMA, "Qwen/Qwen2.5-0.5B", "google/gemma-2-2b", "EleutherAI/pythia-1.4b"]),
    gpus=st.sampled_from([1, 8]),
    tokens=st.sampled_from([150.0, 700.0, 2048.0, None]),
    lora=st.booleans(),
    steps=st.sampled_from([50, 5000]),
    fixed=st.sampled_from(
        [
            {"dataset__packing": False},
            {"model__kernels": "none"},
            {"model__compile": False},
            {"model__kernels": "none", "model__compile": False, "dataset__packing": False},
        ]
    ),
)
def test_more_to_choose_from_is_never_worse(
    model: str, gpus: int, tokens: float | None, lora: bool, steps: int, fixed: dict[str, Any]
) -> None:
    """The best of all ways against the best with some fixed: of a trained row of the data, within the stated tie. And
    whatever is chosen splits the batch as it must, and none that is listed is better by more than the tie."""
    asked = {"adapter": LORA if lora else None, "training__max_steps": steps, "dataset__mean_tokens": tokens}
    if tokens is None:  # packed by rule, not by search
        asked["dataset__packing"] = False
    free, bound = (best(request(model, **asked | more), f"h100-sxm-80gb:{gpus}") for more in ({}, fixed))
    assert free <= bound * 1.0301


def best(made: Any, inventory: str) -> float:
    passes = all_passes(made, facts(made, inventory))
    wanted = objective(made, passes)
    ranked = settled(made, passes)
    found, row = ranked[0]
    c = found.candidate(row)
    assert c.micro_batch_size * c.gradient_accumulation_steps * c.data_parallel == found.total
    mine, slack = float(wanted.of(found)[row]), float(wanted.slack(found)[row])
    assert all(float(wanted.of(p)[r]) >= mine - slack * 1.001 for p, r in ranked)
    return float(seconds(found)[row])


def test_several_datasets_are_weighed_by_their_rows() -> None:
    made = request(LLAMA)
    two = replace(made, datasets=(made.datasets[0], replace(made.datasets[0], path="b.jsonl")))
    short, long = of_mean(100.0, 2048, "a"), of_mean(2048.0, 2048, "b")

    def mean(rows: int) -> float:
        data = (DataFacts(path="a", rows=900, lengths=short), DataFacts(path="b", rows=rows, lengths=long))
        known = replace(facts(made, "h100-sxm-80gb"), data=data)
        found = scenarios(two, known)[0][0].lengths
        assert found is not None and found.source == "a; b"
        return sum(n * s for n, s in zip(found.tokens, found.shares, strict=True))

    assert mean(100) == pytest.approx(0.9 * 100 + 0.1 * 2048, rel=0.02)
    assert mean(900) == pytest.approx(0.5 * 100 + 0.5 * 2048, rel=0.02)


def test_packing_that_is_set_where_documents_are_attended_to_one_by_one_is_warned_of() -> None:
    slow = chosen(plan("google/gemma-2-2b", "h100-sxm-80gb", dataset__packing=True))
    assert slow.chosen.candidate.attention == "varlen"
    assert any("cannot cap scores" in w and "one by one" in w for w in slow.warnings)
    assert not any("one by one" in w for w in chosen(plan(LLAMA, "h100-sxm-80gb", dataset__packing=True)).warnings)


def test_weights_rounded_by_chance_are_updated_tensor_by_tensor() -> None:
    fixed = {"training__micro_batch_size": 1, "training__global_batch_size": 1, "model__compile": False}
    plain, by_chance = (
        dict(chosen(plan(LLAMA, "h100-sxm-80gb", training__bf16_update=u, **fixed)).chosen.estimate.time.breakdown)
        for u in ("nearest", "stochastic")
    )
    assert by_chance["optimizer"] > plain["optimizer"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, True),
        ({"training__bf16_update": "stochastic"}, False),
        ({"model__dtype": "float32"}, False),
        ({"model__quantization": QuantizationRequest(method="nf4")}, False),  # raised to float32 before
        ({"adapter": LORA}, False),
    ],
)
def test_a_module_trained_whole_in_16_bits_is_told_of(changes: dict[str, Any], told: bool) -> None:
    whole = {"adapter": replace(LORA, modules_to_save=("lm_head", "embed_tokens"))}
    found = chosen(plan(LLAMA, "h100-sxm-80gb", **whole | changes)).warnings
    assert any("of lm_head and embed_tokens are trained without float32 masters" in w for w in found) == told
