"""Host memory and disk: each term against arithmetic done by hand from what the libraries' sources do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from asking import LORA, facts, plan, request
from axoc.cost import host
from axoc.cost.columns import OFFLOADS, STRATEGIES, Columns
from axoc.cost.disk import RUN_ITEMS, checkpoint_bytes, disk
from axoc.cost.host import HOST_PHASES, copied_at_load_bytes, host_memory
from axoc.cost.offload import offloaded, pinned
from axoc.cost.scenario import Scenario
from axoc.ir.facts import RowLengths
from axoc.ir.plan import Plan
from axoc.ir.request import QuantizationRequest
from axoc.search.choose import scenarios

EIGHT_B = "meta-llama/Meta-Llama-3-8B"
N = 8_030_261_248


def scenario(model: str = EIGHT_B, inventory: str = "h100-sxm-80gb:8", **changes: Any) -> Scenario:
    asked = {k: changes.pop(k) for k in [k for k in changes if "__" in k or k == "adapter"]}
    made = request(model, **asked)
    return replace(scenarios(made, facts(made, inventory))[0][0].variant(0), **changes)


def row(strategy: str, degree: int = 8, offload: str = "none", accumulation: int = 1) -> Columns:
    values = {
        "strategy": STRATEGIES.index(strategy),  # type: ignore[arg-type]
        "data_parallel": degree,
        "tensor_parallel": 1,
        "replicate_degree": 1,
        "micro_batch": 1,
        "accumulation": accumulation,
        "checkpointed_layers": 0,
        "offload": OFFLOADS.index(offload),  # type: ignore[arg-type]
    }
    return Columns(**{k: np.array([v]) for k, v in values.items()})


def item(s: Scenario, c: Columns, phase: str, name: str) -> float:
    zero = np.zeros(1)
    return float(host_memory(s, c, zero, zero).ledgers[phase][name][0])


def test_weights_in_the_dtype_of_their_files_are_mapped_and_others_copied_on_every_rank() -> None:
    same = scenario()
    assert same.model.file_dtype == "bfloat16" and item(same, row("ddp"), "load", "weights while loading") == 0
    cast = replace(same, dtype="float32")
    assert item(cast, row("ddp"), "load", "weights while loading") == 8 * 4 * N
    assert (
        item(cast, row("zero3"), "load", "weights while loading") == 0
    )  # rank 0 copies tensor by tensor into partitions
    unknown = replace(same, model=replace(same.model, file_dtype=None))
    assert item(unknown, row("fsdp"), "load", "weights while loading") == 8 * 2 * N  # not known: as if they differed


def test_quantized_weights_go_straight_to_the_device() -> None:
    s = scenario(adapter=LORA, model__quantization=QuantizationRequest(method="nf4"), dtype="float32")
    assert s.quantized and copied_at_load_bytes(s, row("ddp"))[0] == 0


def test_experts_are_stacked_in_memory_of_each_rank_though_the_dtype_is_that_of_the_files() -> None:
    s = scenario("mistralai/Mixtral-8x7B-v0.1")
    experts = 32 * 8 * 3 * 4096 * 14336
    assert copied_at_load_bytes(s, row("zero3"))[0] == copied_at_load_bytes(s, row("ddp"))[0] == 2 * experts


@pytest.mark.parametrize(("asked", "given"), [(1.0, 1), (3.0, 4), (2.0**30, 2**30), (2.0**30 + 1, 2**31), (0.0, 0)])
def test_pinned_memory_is_a_power_of_two(asked: float, given: int) -> None:
    assert pinned(np.array([asked]))[0] == given


def test_zero2_offload_pins_masters_a_copy_and_gradients() -> None:
    found = {k: float(v[0]) for k, v in offloaded(scenario(), row("zero2", 8, "optimizer")).items()}
    share = N / 8  # 1.0e9 parameters: 4.02 GB of fp32 becomes 4.29, 2.01 of bf16 becomes 2.15
    assert found["offloaded masters"] == 2**32 and found["offloaded parameters"] == 2**31
    assert found["offloaded optimizer states"] == 8 * share and found["offloaded gradients"] == 2**32


def test_accumulation_keeps_a_pinned_gradient_of_each_parameter_under_zero2() -> None:
    s = scenario()
    once = offloaded(s, row("zero2", 8, "optimizer"))["offloaded gradients"][0]
    more = offloaded(s, row("zero2", 8, "optimizer", 4))["offloaded gradients"][0]
    assert more - once == pytest.approx(2 * N / 8 * s.sizes.pinned_ratio) and 1 < s.sizes.pinned_ratio < 2


def test_zero3_offload_steps_in_pieces_and_flattens_its_gradients() -> None:
    found = {k: float(v[0]) for k, v in offloaded(scenario(), row("zero3", 2, "optimizer")).items()}
    share = N / 2
    pieces = 4 * 2**32 + 2 ** int(np.ceil(np.log2(4 * (share - 4e9))))
    assert found["offloaded gradients"] == pieces + 2**33  # 8.03 GB of bf16 gradients
    assert found["offloaded masters"] == 4 * share and found["offloaded parameters"] == 0


def test_ddp_on_a_cpu_broadcasts_frozen_weights_too_two_flat_copies_at_a_time() -> None:
    s = scenario("Qwen/Qwen2.5-0.5B", "cpu", adapter=LORA, dtype="float32")
    matrix, bucket = 4 * s.sizes.vocabulary_matrix, 250 * 2**20
    assert matrix > bucket, "it fills a copy alone"
    assert item(s, row("ddp", 1), "load", "copies being broadcast") == matrix + bucket
    small = replace(s, dtype="bfloat16", sizes=replace(s.sizes, vocabulary_matrix=1_000_000))
    assert item(small, row("ddp", 1), "load", "copies being broadcast") == 2 * bucket
    assert item(s, row("single", 1), "load", "copies being broadcast") == 0
    assert item(s, row("fsdp", 1), "load", "copies being broadcast") == 0


def test_nothing_is_offloaded_on_a_cpu_or_where_it_was_not_asked_for() -> None:
    assert not any(v.any() for v in offloaded(scenario(), row("zero3")).values())
    assert not any(v.any() for v in offloaded(scenario(inventory="cpu"), row("zero3", 1, "optimizer")).values())


def test_saving_under_zero2_clones_the_whole_module_on_every_rank_and_zero3_gathers_it_once() -> None:
    s = scenario()
    assert item(s, row("zero2"), "save", "copies being saved") == 8 * 2 * N
    assert item(s, row("zero3"), "save", "copies being saved") == max(2 * N, 4 * N)  # a rank's masters, one at a time
    assert item(s, row("fsdp"), "save", "copies being saved") == max(2 * N, 4 * N)  # its states, copied off the device
    assert item(scenario(adapter=LORA), row("zero2"), "save", "copies being saved") > 8 * 2 * N  # frozen weights too


def test_an_adapter_is_merged_in_one_process_at_the_end() -> None:
    s = scenario(adapter=LORA)
    assert item(s, row("ddp"), "finish", "model being merged") == 2 * N + 4 * s.trainable
    assert item(scenario(), row("ddp"), "finish", "model being merged") == 0


def test_the_host_needs_what_its_fullest_phase_needs() -> None:
    s, zero = scenario(), np.zeros(1)
    found = host_memory(s, row("zero3", 8, "optimizer"), zero, zero)
    totals = [float(found.phases[p][0]) for p in HOST_PHASES]
    assert found.bytes[0] == max(totals) and totals[int(found.phase[0])] == max(totals)
    assert max(totals) > 8 * 16 * N / 8 + 8 * host.CUDA_PROCESS_BYTES


def test_a_checkpoint_holds_weights_states_and_under_zero_masters() -> None:
    s = scenario()
    each = {name: float(checkpoint_bytes(s, row(name))[0]) / N for name in ("ddp", "fsdp", "zero2", "zero3")}
    assert each == {"ddp": 2 + 4, "fsdp": 2 + 4, "zero2": 2 + 2 + 12, "zero3": 2 + 12}
    adapter = replace(scenario(adapter=LORA), steps=None)
    assert checkpoint_bytes(adapter, row("ddp"))[0] == 12 * adapter.trainable
    assert checkpoint_bytes(adapter, row("fsdp"))[0] == 12 * adapter.trainable + 2 * N  # frozen weights are sharded too


@pytest.mark.parametrize(("saves", "peak"), [(None, 18), (1, 8), (2, 14), (9, 18)])
def test_two_checkpoints_are_kept_while_the_next_is_written(saves: int | None, peak: int) -> None:
    """Six bytes a parameter each, and then two of the result: three at once, or two and the result."""
    s = replace(scenario(), saves=saves)
    ledger = disk(s, row("ddp"))
    assert sum(float(ledger[i][0]) for i in RUN_ITEMS if i != "prepared rows") == pytest.approx(peak * N)


def test_an_upload_holds_the_checkpoint_that_rotation_would_have_deleted() -> None:
    s = scenario(saves=5)
    sending = replace(s, uploads=True)
    assert disk(s, row("ddp"))["checkpoint being uploaded"][0] == 0
    assert disk(sending, row("ddp"))["checkpoint being uploaded"] == checkpoint_bytes(s, row("ddp"))
    assert disk(replace(sending, saves=2), row("ddp"))["checkpoint being uploaded"][0] == 0, "none is rotated"


def test_a_tied_head_is_stored_twice_by_fsdp_and_zero2_but_not_by_zero3() -> None:
    """As measured: docs/host-memory.md."""
    s = scenario("Qwen/Qwen2.5-0.5B")
    each = {name: float(checkpoint_bytes(s, row(name))[0]) for name in ("ddp", "fsdp", "zero2", "zero3")}
    tied, n = 2 * 151_936 * 896, s.sizes.total
    assert each == {"ddp": 6 * n, "fsdp": 6 * n + tied, "zero2": 16 * n + tied, "zero3": 14 * n}


def test_prepared_rows_are_never_more_than_the_data_has_bytes() -> None:
    s = replace(scenario(), data_rows=1000, data_bytes=10**9)
    assert disk(s, row("ddp"))["prepared rows"][0] == 1000 * 2048 * 8 + 118 * 1000
    assert disk(replace(s, data_bytes=50_000), row("ddp"))["prepared rows"][0] == 50_000 * 8 + 118 * 1000


def test_prepared_rows_of_known_lengths_take_their_tokens_cut_to_the_limit() -> None:
    lengths = RowLengths(tokens=(100.0, 9000.0), shares=(0.75, 0.25), source="counted")
    s = replace(scenario(), data_rows=1000, data_bytes=10**9, lengths=lengths)
    assert disk(s, row("ddp"))["prepared rows"][0] == pytest.approx((750 * 100 + 250 * 2048) * 8 + 118 * 1000)
    assert disk(replace(s, streaming=True), row("ddp"))["prepared rows"][0] == 0


def test_the_ledgers_of_a_plan_sum_to_its_figures() -> None:
    made = plan(EIGHT_B, "h100-sxm-80gb:8", adapter=LORA)
    assert isinstance(made, Plan)
    memory = made.chosen.estimate.memory
    assert sum(i.bytes for i in memory.host_ledger) == memory.host_bytes > 0
    assert sum(i.bytes for i in memory.disk_ledger) == memory.disk_bytes > 0
    assert {i.item for i in memory.disk_ledger} >= {"environment", "base model", "final model"}
    assert set(RUN_ITEMS) > {i.item for i in memory.disk_ledger} - {"environment", "base model"}


@pytest.mark.parametrize(("files", "mapped"), [("float32", True), ("bfloat16", False)])
def test_frozen_weights_of_one_cpu_rank_stay_pages_of_their_files(files: str, mapped: bool) -> None:
    found = scenario("Qwen/Qwen2.5-0.5B", "cpu", adapter=LORA, dtype="float32")
    found = replace(found, model=replace(found.model, file_dtype=files))
    peak = np.array([4e9])
    train = host.host_memory(found, row("single", 1), peak, peak).ledgers["train"]
    assert (peak[0] - train[host.TENSORS][0] == pytest.approx(4 * found.sizes.total)) == mapped
