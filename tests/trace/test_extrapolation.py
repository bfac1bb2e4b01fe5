"""Two shallow runs say what the full depth needs, to the byte; and what the settings must do to memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runtime.jobs import LORA

from .shapes import GEMMA2, LLAMA, MIXTRAL, TIED, job

pytestmark = pytest.mark.slow


FEW: dict[str, Any] = {**LLAMA, "num_hidden_layers": 4}
PEAKS: dict[str, int] = {}


def both(made: Any, config: dict[str, Any]) -> tuple[Any, Any]:
    """(extrapolated, full)"""
    from axoc_runtime.trace.extrapolate import trace

    return trace(made, config, full_run_seconds=0), trace(made, config, full_run_seconds=1e9)


@pytest.mark.parametrize("config", [LLAMA, TIED, MIXTRAL, GEMMA2], ids=["llama", "tied", "mixtral", "gemma2"])
@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_it_is_exact(tmp_path: Path, config: dict[str, Any], checkpointing: str) -> None:
    changes: dict[str, Any] = {"training__gradient_checkpointing": checkpointing}
    if config is MIXTRAL:  # grouped products want weights in bfloat16
        changes["model__dtype"] = "bfloat16"
    if config is GEMMA2:
        changes["model__attention"] = "eager"
    depth = 13 if config is GEMMA2 else 6
    few, full = both(job(tmp_path, config, **changes), {**config, "num_hidden_layers": depth})
    assert full.layers_run == (depth,)
    assert len(few.layers_run) == 2 and max(few.layers_run) < depth
    assert few.phases.keys() == full.phases.keys()
    for phase, found in few.phases.items():  # the norms of all gradients are stacked: a block of 512 more or less
        assert abs(found - full.phases[phase]) <= (512 if phase == "optimizer" else 0), phase


def test_the_pattern_of_a_model_is_kept(tmp_path: Path) -> None:
    from axoc_runtime.trace.extrapolate import period_of, shallow_depths

    assert period_of(LLAMA) == 1
    assert period_of(GEMMA2) == 2
    assert period_of({**LLAMA, "model_type": "gemma3_text", "num_hidden_layers": 26}) == 6
    irregular = ["linear_attention", "full_attention", "linear_attention", "linear_attention", "full_attention", "moe"]
    assert period_of({"model_type": "nemotron_h", "layers_block_type": irregular}) == 6, "the pattern never comes again"
    assert shallow_depths(6, 6, 0) is None
    assert shallow_depths(32, 1, 0) == (3, 5)
    assert shallow_depths(26, 2, 0) == (6, 10)
    assert shallow_depths(4, 1, 0) is None


def peak(folder: Path, config: dict[str, Any] = LLAMA, **changes: Any) -> Any:
    from axoc_runtime.trace.extrapolate import trace

    return trace(job(folder, config, **changes), config)


def test_states_are_counted_to_the_byte(tmp_path: Path) -> None:
    """fp32 weights, their gradients and two fp32 moments: 16 bytes a parameter, and 4 KiB of small blocks a tensor at
    most, beside two workspaces."""
    import torch
    from axoc_runtime.trace.device import HOPPER_WORKSPACE
    from axoc_runtime.trace.model import library_config
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(library_config(LLAMA))
    numbers, tensors = sum(p.numel() for p in model.parameters()), len(list(model.parameters()))
    found = peak(tmp_path).phases["optimizer"] - 2 * HOPPER_WORKSPACE
    assert 16 * numbers <= found <= 16 * numbers + 4096 * tensors


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"training__gradient_checkpointing": "full"}, {}),
        ({"training__gradient_checkpointing": "full"}, {"training__gradient_checkpointing": "selective"}),
        ({"training__gradient_checkpointing": "selective"}, {"training__gradient_checkpointing": "none"}),
        ({"model__kernels": "liger"}, {}),
        ({"training__optimizer": "adafactor"}, {}),
        ({"training__optimizer": "adamw_bnb_8bit"}, {}),
        ({"training__micro_batch_size": 1}, {}),
        ({"model__dtype": "bfloat16"}, {}),
    ],
)
def test_what_saves_memory_saves_it(tmp_path: Path, less: dict[str, Any], more: dict[str, Any]) -> None:
    assert allocated(tmp_path, less) < allocated(tmp_path, more)


def allocated(folder: Path, changes: dict[str, Any]) -> int:
    """At most; traced once."""
    shared = {"training__checkpointed_layers": 2, "training__micro_batch_size": 8}
    key = json.dumps(changes)
    if key not in PEAKS:
        PEAKS[key] = peak(folder, FEW, **{**shared, **changes}).peak_allocated_bytes
    return PEAKS[key]


def test_what_cannot_be_traced_is_refused(tmp_path: Path) -> None:
    from axoc_runtime.errors import RuntimeFailure
    from axoc_runtime.trace.extrapolate import trace

    with pytest.raises(RuntimeFailure, match="lion_32bit cannot be traced yet"):
        peak(tmp_path, training__optimizer="lion_32bit")
    packed = {"method": "nf4", "double_quantization": True, "options": {}}
    with pytest.raises(RuntimeFailure, match="DoRA over quantized weights cannot be traced yet"):
        peak(tmp_path, model__quantization=packed, adapter={**LORA, "use_dora": True})
    with pytest.raises(RuntimeFailure, match="knows no model of type 'nope'"):
        trace(job(tmp_path, LLAMA), {**LLAMA, "model_type": "nope"})


def test_the_longest_rows_need_less_where_they_come_before_what_stays(tmp_path: Path) -> None:
    """In a run's first step no optimizer's states are there, and in a step's first micro-batch no gradients."""
    from axoc_runtime.trace.extrapolate import trace

    made = job(tmp_path, FEW, training__micro_batch_size=16, training__gradient_accumulation_steps=2)
    runs = (((512, 8), (8, 8)), ((8, 8), (512, 8)), ((8, 8), (8, 512)))
    first_step, first_batch, last = (trace(made, FEW, widths=steps).peak_allocated_bytes for steps in runs)
    parameters = (
        2 * 512 * 64 + 4 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160) + 9 * 128
    )  # a norm's in a block of 512 bytes
    assert last - first_batch == 4 * parameters
    assert first_batch - first_step >= 8 * parameters
