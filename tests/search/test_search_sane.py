"""What any engineer would expect of the planner, and the invariants that hold for every request."""

from __future__ import annotations

from dataclasses import replace

import pytest
from asking import LORA, facts, plan, request
from axoc.errors import UserError
from axoc.ir.plan import NoPlan, Plan
from axoc.ir.request import QuantizationRequest
from axoc.search.choose import all_passes, scenarios, search, settled
from hypothesis import given, settings
from hypothesis import strategies as st

NF4 = QuantizationRequest(method="nf4")
MODELS = (
    "Qwen/Qwen2.5-0.5B",
    "meta-llama/Llama-3.2-1B",
    "mistralai/Mistral-7B-v0.1",
    "google/gemma-2-9b",
    "EleutherAI/pythia-1.4b",
)


def chosen(result: Plan | NoPlan) -> Plan:
    assert isinstance(result, Plan), result
    return result


def test_half_a_billion_parameters_on_eight_h100_is_ddp() -> None:
    found = chosen(plan("Qwen/Qwen2.5-0.5B", "h100-sxm-80gb:8")).chosen.candidate
    assert (found.strategy, found.data_parallel, found.offload) == ("ddp", 8, "none")


def test_time_is_that_of_the_bundle_s_runtime_which_counts_no_operations() -> None:
    asked = request("Qwen/Qwen2.5-0.5B")
    assert not scenarios(asked, facts(asked, "h100-sxm-80gb"))[0][0].counts_operations


def test_70b_full_on_eight_h100_is_sharded_or_says_what_would_fit() -> None:
    result = plan("meta-llama/Meta-Llama-3-70B", "h100-sxm-80gb:8", dataset__max_seq_length=4096)
    if isinstance(result, NoPlan):
        assert result.smallest_change
        assert all(r.estimate is not None for r in result.nearest)
    else:
        assert result.chosen.candidate.strategy in ("fsdp", "zero3")


def test_70b_full_on_four_nodes_needs_no_offload() -> None:
    found = chosen(plan("meta-llama/Meta-Llama-3-70B", "h100-sxm-80gb:8x4", dataset__max_seq_length=4096)).chosen
    assert found.candidate.strategy in ("fsdp", "zero3")
    assert found.candidate.offload == "none"


def test_8b_qlora_fits_a_24_gb_card() -> None:
    found = chosen(plan("meta-llama/Meta-Llama-3-8B", "l4-24gb", adapter=LORA, model__quantization=NF4)).chosen
    assert found.candidate.quantization == "nf4"
    assert found.estimate.memory.device_used_bytes < 0.97 * found.estimate.memory.capacity_bytes


def test_quantization_left_open_is_used_only_where_exact_weights_do_not_fit() -> None:
    roomy = chosen(plan("meta-llama/Meta-Llama-3-8B", "h100-sxm-80gb", adapter=LORA, model__quantization="auto"))
    tight = chosen(
        plan(
            "meta-llama/Meta-Llama-3-8B",
            "t4-16gb",
            adapter=LORA,
            model__quantization="auto",
            model__dtype="float16",
            distributed__mixed_precision="fp16",
        )
    )
    assert roomy.chosen.candidate.quantization == "none"
    assert tight.chosen.candidate.quantization == "nf4"


def test_no_plan_names_the_shortfall_and_a_change_that_really_fits() -> None:
    made = request("meta-llama/Meta-Llama-3-70B", distributed__type="ddp")
    known = facts(made, "h100-sxm-80gb:8")
    result = search(made, known)
    assert isinstance(result, NoPlan)
    assert result.nearest and all("short" in r.reason for r in result.nearest)
    assert result.smallest_change == "set distributed.type: auto"
    opened = replace(made, distributed=replace(made.distributed, type="auto"))
    assert isinstance(search(opened, known), Plan)


@pytest.mark.parametrize("sizes", [{}, {"micro_batch_size": 4, "gradient_accumulation_steps": 3}])
def test_a_batch_that_no_rank_can_share_evenly_is_told_as_the_next_that_fits(sizes: dict[str, int]) -> None:
    made = request(
        "Qwen/Qwen2.5-0.5B", training__global_batch_size=12, **{f"training__{k}": v for k, v in sizes.items()}
    )
    result = search(made, facts(made, "h100-sxm-80gb:8"))
    assert isinstance(result, NoPlan)
    left = " and leave its other sizes auto" if sizes else ""
    assert result.smallest_change == f"set training.global_batch_size: 16{left}"


def test_an_accelerator_without_bfloat16_is_told_the_numbers_that_fit() -> None:
    made = request("Qwen/Qwen2.5-0.5B", adapter=LORA)
    result = search(made, facts(made, "v100-sxm-32gb"))
    assert isinstance(result, NoPlan)
    assert result.smallest_change == "set model.dtype: float32 and distributed.mixed_precision: fp16"


def test_more_gpus_than_the_inventory_has_is_an_input_error() -> None:
    with pytest.raises(UserError, match="gpu_count is 16"):
        plan("Qwen/Qwen2.5-0.5B", "h100-sxm-80gb:8", distributed__gpu_count=16)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"model__quantization": NF4}, "quantized-needs-adapter"),
        ({"training__objective": "reward", "model__kernels": "liger"}, "preference-kernels"),
        ({"dataset__packing": True, "model__attention": "eager"}, "packing-needs-varlen"),
        ({"training__optimizer": "adamw_bnb_8bit", "distributed__type": "fsdp"}, "fsdp-8bit-optimizer"),
        ({"distributed__offload": "optimizer", "distributed__type": "ddp"}, "offload-needs-zero"),
        ({"distributed__model_parallel_size": 8, "adapter": LORA}, "tensor-parallel-divides"),
        ({"training__global_batch_size": 63}, "batch-arithmetic"),
        ({"adapter": LORA, "model__quantization": NF4, "distributed__type": "fsdp"}, "quantized-base-sharded"),
    ],
)
def test_a_rule_refuses_with_reason_and_fix(changes: dict[str, object], rule: str) -> None:
    result = plan("Qwen/Qwen2.5-0.5B", "h100-sxm-80gb:8", **changes)
    assert isinstance(result, NoPlan)
    refused = [r for r in result.rejections if r.rule == rule]
    assert refused and refused[0].reason and refused[0].fix


@settings(max_examples=30)
@given(
    model=st.sampled_from(MODELS),
    gpus=st.sampled_from([1, 2, 4, 8]),
    seq=st.sampled_from([512, 2048, 8192]),
    batch=st.one_of(st.just("auto"), st.integers(1, 200)),
    micro=st.one_of(st.just("auto"), st.integers(1, 8)),
    lora=st.booleans(),
)
def test_invariants_of_every_plan(model: str, gpus: int, seq: int, batch: object, micro: object, lora: bool) -> None:
    result = plan(
        model,
        f"h100-sxm-80gb:{gpus}",
        dataset__max_seq_length=seq,
        adapter=LORA if lora else None,
        training__global_batch_size=batch,
        training__micro_batch_size=micro,
    )
    if isinstance(result, NoPlan):
        assert result.rejections
        return
    first = result.chosen.candidate
    for scored in result.candidates:
        c, m = scored.candidate, scored.estimate.memory
        assert c.global_batch_size == first.global_batch_size
        assert c.data_parallel * c.tensor_parallel == c.world_size == gpus
        assert batch == "auto" or c.global_batch_size == batch
        assert micro == "auto" or c.micro_batch_size == micro
        assert m.device_used_bytes <= m.capacity_bytes * 0.97
        assert sum(i.bytes for i in m.ledger) == m.peak_allocated_bytes == max(p.bytes for p in m.phases) or abs(
            sum(i.bytes for i in m.ledger) - max(p.bytes for p in m.phases)
        ) < len(m.ledger)
        assert m.peak_allocated_bytes <= m.peak_reserved_bytes <= m.device_used_bytes
    assert all(d.because and d.source for d in result.decisions)


@settings(max_examples=30)
@given(model=st.sampled_from(MODELS), gpus=st.sampled_from([1, 4, 8]), lora=st.booleans())
def test_the_chosen_plan_is_not_dominated(model: str, gpus: int, lora: bool) -> None:
    """No candidate's whole run is shorter by more than the stated tie share of its training."""
    made = request(model, adapter=LORA if lora else None)
    known = facts(made, f"h100-sxm-80gb:{gpus}")
    result = chosen(search(made, known))
    passes = all_passes(made, known)
    settled(made, passes)  # the fastest may fit by the closed form and not by the replay of its allocations
    time = result.chosen.estimate.time
    for found in passes:
        training = found.costed.time.step_seconds * (time.total_steps or 0)
        limit = found.costed.run_seconds() + 0.03 * training
        assert (time.total_seconds or 0) <= limit[found.fits()].min() * (1 + 1e-9)


@pytest.mark.usefixtures("costed_anew")
def test_the_same_request_gives_the_same_plan() -> None:
    assert plan("mistralai/Mistral-7B-v0.1", "a100-sxm-80gb:4") == plan("mistralai/Mistral-7B-v0.1", "a100-sxm-80gb:4")


EXPLAINED_BY = {
    "strategy": "distributed.type",
    "world_size": "distributed.gpu_count",
    "data_parallel": "distributed.gpu_count",  # the world over the tensor-parallel degree
    "tensor_parallel": "distributed.model_parallel_size",
    "replicate_degree": "distributed.replicate_degree",
    "blocks_per_unit": "distributed.type",  # of fsdp alone, which says more in distributed.min_unit_parameters
    "micro_batch_size": "training.micro_batch_size",
    "gradient_accumulation_steps": "training.gradient_accumulation_steps",
    "gradient_checkpointing": "training.gradient_checkpointing",
    "checkpointed_layers": "training.gradient_checkpointing",
    "attention": "model.attention",
    "kernels": "model.kernels",
    "compile": "model.compile",
    "packing": "dataset.packing",
    "optimizer": "training.optimizer",
    "offload": "distributed.offload",
    "quantization": "model.quantization",
    "dtype": "model.dtype",
    "mixed_precision": "distributed.mixed_precision",
    "accelerator": "distributed.gpu_count",
}


@pytest.mark.parametrize("inventory", ["h100-sxm-80gb:8", "l4-24gb", "cpu"])
def test_every_value_of_a_plan_has_its_because(inventory: str) -> None:
    result = chosen(plan("Qwen/Qwen2.5-0.5B", inventory, model__dtype="float32", distributed__mixed_precision="no"))
    reasons = {d.field: d.because for d in result.decisions}
    for value in result.chosen.candidate.as_dict():
        assert reasons.get(EXPLAINED_BY[value]), value
    assert reasons["training.eval_steps"] and reasons["training.save_steps"] and reasons["training.global_batch_size"]


@pytest.mark.parametrize(("above", "mode", "count"), [(10_000, "full", 24), (10**9, "none", 0)])
def test_blocks_above_the_threshold_are_recomputed(above: int, mode: str, count: int) -> None:
    result = chosen(plan("Qwen/Qwen2.5-0.5B", "h100-sxm-80gb:8", training__checkpoint_above_parameters=above))
    assert (result.chosen.candidate.gradient_checkpointing, result.chosen.candidate.checkpointed_layers) == (
        mode,
        count,
    )
    reasons = {d.field: d.because for d in result.decisions}
    assert f"{count} of 24 blocks" in reasons["training.checkpoint_above_parameters"]
