"""What the trace notes that a micro-step launches, in jobs small enough to count by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from .shapes import LLAMA, job

pytestmark = pytest.mark.slow
LAYERS = 3
CONFIG: dict[str, Any] = {**LLAMA, "num_hidden_layers": LAYERS}
LINEARS = 7
ADAPTER: dict[str, Any] = {
    "type": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": "all-linear", "use_rslora": False, "use_dora": False,
    "modules_to_save": [], "init": "default", "init_iterations": None, "loraplus_lr_ratio": None, "casts_inputs": True,
    "scales_between": False,
}  # fmt: skip


def launched(folder: Path, **changes: Any) -> dict[str, Any]:
    pytest.importorskip("torch")
    from axoc_runtime.trace.extrapolate import trace

    (run,) = trace(job(folder, CONFIG, **changes), CONFIG).launches
    return run


def names(run: dict[str, Any], micro_step: int = -1) -> list[str]:
    return [run["kinds"][place][0] for place in run["micro_steps"][micro_step]]


def test_products_and_passes_of_a_step(tmp_path: Path) -> None:
    """Each layer's product once forward and twice backward, but for the first one's input: the head's is one of them."""
    run = launched(tmp_path, training__gradient_checkpointing="none")
    found = Counter(names(run))
    assert found["aten.mm"] == 3 * (LAYERS * LINEARS + 1)
    assert (found["pass"], found["back"]) == (LAYERS, LAYERS)
    assert found["aten._scaled_dot_product_cudnn_attention_backward"] == LAYERS
    assert not any(name.endswith((".view", ".t", ".transpose", ".empty_like")) for name in found)


def test_recomputation_passes_blocks_twice(tmp_path: Path) -> None:
    """And leaves out the last product of each, whose output nobody asks for again."""
    plain = Counter(names(launched(tmp_path, training__gradient_checkpointing="none")))
    again = Counter(names(launched(tmp_path, training__gradient_checkpointing="full")))
    assert (again["pass"], again["back"]) == (2 * LAYERS, LAYERS)
    assert again["aten.mm"] == plain["aten.mm"] + LAYERS * (LINEARS - 1)


def test_shapes_and_strides_tell_how_a_product_lies(tmp_path: Path) -> None:
    run = launched(tmp_path, training__gradient_checkpointing="none")
    first = next(run["kinds"][place] for place in run["micro_steps"][0] if run["kinds"][place][0] == "aten.mm")
    rows, weight = first[1]
    assert (tuple(rows[1]), tuple(weight[1]), tuple(weight[2])) == ((128, 64), (64, 64), (1, 64))
    assert rows[3] == 2  # bytes, under autocast


def test_adapters_are_marked_forward_and_when_they_run_again(tmp_path: Path) -> None:
    changes = {"adapter": ADAPTER, "training__gradient_checkpointing": "full"}
    assert Counter(names(launched(tmp_path, **changes)))["adapter"] == 2 * LAYERS * LINEARS


def test_later_micro_steps_add_to_gradients(tmp_path: Path) -> None:
    changes = {"training__gradient_accumulation_steps": 3, "training__gradient_checkpointing": "none"}
    run = launched(tmp_path, **changes)
    first, second = (Counter(names(run, i)) for i in (0, 1))
    assert len(run["micro_steps"]) == 2
    parameters = LAYERS * (LINEARS + 2) + 3
    assert second["aten.add_"] - first["aten.add_"] == parameters


def test_a_kernel_that_stands_for_others_hides_them(tmp_path: Path) -> None:
    run = launched(tmp_path, model__kernels="liger", training__gradient_checkpointing="none")
    found = Counter(names(run))
    assert (found["liger.norm"], found["liger.norm_backward"]) == (2 * LAYERS + 1, 2 * LAYERS + 1)
    assert (found["liger.gated"], found["liger.rotation"]) == (LAYERS, 4 * LAYERS)
    assert found["liger.loss"] == 1
    assert found["aten.mm"] == 3 * LAYERS * LINEARS  # the head's are the loss's own


def test_compiled_blocks_launch_what_inductor_wrote(tmp_path: Path) -> None:
    run = launched(tmp_path, model__compile=True, training__gradient_checkpointing="none")
    kinds = [run["kinds"][place] for place in run["micro_steps"][-1]]
    assert all(kind[1][0] > 0 for kind in kinds if kind[0] == "triton")
    inside = Counter(kind[0] for kind in kinds if kind[3])
    assert inside["triton"] >= 4 * LAYERS
    assert inside["aten.mm"] == 3 * LAYERS * LINEARS


def test_depths_are_told_one_by_one(tmp_path: Path) -> None:
    from axoc_runtime.trace.extrapolate import trace

    config = {**LLAMA, "num_hidden_layers": 9}
    found = trace(job(tmp_path, config, training__gradient_checkpointing="none"), config, full_run_seconds=0.0)
    assert len(found.launches) == 2
    passes = [Counter(names(run))["pass"] for run in found.launches]
    assert passes == list(found.layers_run)
    assert replace(found).to_dict()["launches"] == list(found.launches)
