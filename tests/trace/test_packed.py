"""Packed batches, attention by boundaries and the chunked loss: the trace against sizes by hand, and the closed form."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runtime.jobs import LORA

from .shapes import LLAMA, job

pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
WIDE: dict[str, Any] = {
    **LLAMA,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 32000,
    "num_hidden_layers": 4,
    "max_position_embeddings": 4096,
}


def traced(folder: Path, config: dict[str, Any], **changes: Any) -> Any:
    from axoc_runtime.trace.extrapolate import trace

    return trace(job(folder, config, **changes), config)


def closed_form(monkeypatch: pytest.MonkeyPatch, kernels: str) -> float:
    """Peak of allocated bytes of 4 packs of 1,024 tokens, bf16."""
    from axoc.cost.memory import memory

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    versus = importlib.import_module("closed_form_vs_trace")
    row = {
        "config": WIDE, "layers": 4, "seq": 1024, "dtype": "bf16", "mixed": "bf16", "method": "full", "eval": True,
        "optim": "adamw_torch_fused", "attention": "varlen", "liger": False, "ddp": False, "mbs": 4, "ga": 1, "gc": False,
    }  # fmt: skip
    scenario = replace(versus.scenario_of(row), packing=True, kernels=kernels)
    return float(memory(scenario, versus.columns_of(row, scenario.model)).allocated[0])


@pytest.mark.parametrize("kernels", ["none", "liger", "chunked"])
def test_packed_memory_agrees_with_the_closed_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernels: str
) -> None:
    changes: dict[str, Any] = {"model__attention": "varlen", "model__kernels": kernels, "model__dtype": "bfloat16"}
    changes |= {"dataset__packing": True, "dataset__max_seq_length": 1024, "dataset__validation_split": 0.1}
    found = traced(tmp_path, WIDE, training__micro_batch_size=4, **changes).peak_allocated_bytes
    assert closed_form(monkeypatch, kernels) == pytest.approx(found, rel=0.002)


def test_a_pack_is_one_row_of_documents(tmp_path: Path) -> None:
    from axoc_runtime.trace.varlen import pack

    made = pack(3, 8, 100)
    assert made["input_ids"].shape == made["labels"].shape == made["position_ids"].shape == (1, 24)
    assert made["cu_seq_lens_q"].tolist() == made["cu_seq_lens_k"].tolist() == [0, 8, 16, 24]
    assert made["position_ids"][0, 6:10].tolist() == [6, 7, 0, 1]
    assert made["max_length_q"] == made["max_length_k"] == 8


def test_attention_by_boundaries_saves_a_sum_a_row_and_makes_no_mask(tmp_path: Path) -> None:
    """By hand, of 2 x 64 tokens and 4 heads of 16 with 2 keys' heads: row sums in fp32; in the backward accumulators of 128
    tokens more a document, and dk, dv of each query head."""
    from axoc_runtime.trace.device import DEVICES
    from axoc_runtime.trace.step import trace_depth

    made = job(tmp_path, LLAMA, model__attention="varlen", model__dtype="bfloat16", dataset__packing=True)
    events = trace_depth(made, {**LLAMA, "num_hidden_layers": 3}, DEVICES["h100"], 1).events
    backward = [e.num_bytes for e in events if e.phase.startswith("backward") and e.num_bytes > 0]
    scratch = 4 * (128 + 128 * 2) * 17 * 4 + 2 * 128 * 4 * 16 * 2
    assert -(-scratch // 512) * 512 in backward
    forward = [e.num_bytes for e in events if e.phase == "forward" and e.num_bytes > 0]
    assert 4 * 128 * 4 in forward


def test_flash_attention_4s_backward_holds_what_its_source_says(tmp_path: Path) -> None:
    """By hand, as above: rows and columns of 128 tokens, heads of 16 as 32, row sums and log-sum-exps, dk and dv of 2 heads."""
    from axoc_runtime.trace.device import DEVICES
    from axoc_runtime.trace.step import trace_depth

    made = job(tmp_path, LLAMA, model__attention="flash_attention_4", model__dtype="bfloat16", dataset__packing=True)
    events = trace_depth(made, {**LLAMA, "num_hidden_layers": 3}, DEVICES["h100"], 1).events
    backward = [e.num_bytes for e in events if e.phase.startswith("backward") and e.num_bytes > 0]
    padded = (128 + 3 * 128 - 1) // 128 * 128
    scratch = 4 * padded * (32 + 2) * 4 + 2 * 2 * padded * 32 * 4
    assert -(-scratch // 512) * 512 in backward


def test_flash_attentions_packages_need_not_be_here(tmp_path: Path) -> None:
    changes = {"dataset__packing": True, "model__dtype": "bfloat16"}
    shallow = {**LLAMA, "num_hidden_layers": 3}
    ours, theirs = (
        traced(tmp_path, shallow, model__attention=name, **changes) for name in ("varlen", "flash_attention_2")
    )
    assert ours.phases == theirs.phases


def test_what_is_not_traced_is_said(tmp_path: Path) -> None:
    from axoc_runtime.errors import RuntimeFailure

    with pytest.raises(RuntimeFailure, match="attention flex cannot be traced"):
        traced(tmp_path, LLAMA, model__attention="flex")
    int8 = {"method": "int8", "double_quantization": False, "options": {}}
    compiled = traced(
        tmp_path, {**LLAMA, "num_hidden_layers": 3}, model__compile=True, model__quantization=int8, adapter=LORA
    )
    assert any("not compiled" in note for note in compiled.notes)
