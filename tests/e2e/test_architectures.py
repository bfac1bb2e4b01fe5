"""Architectures without a family: planned, trained, merged and exported by their own layers; what cannot be is refused first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import architectures
import forked
import pytest

pytestmark = pytest.mark.slow
TRAINED = (
    ("bloom", "lora"),  # fused attention, no SDPA, ALiBi, names of its own
    ("gptj", "none"),
    ("opt", "lora"),
    ("mamba", "none"),
    ("mamba", "lora"),  # no attention at all
    ("jamba", "lora"),  # state spaces, attention and experts
    ("zamba", "none"),  # blocks that share weights
    ("phimoe", "lora"),  # a router that is no plain linear layer
    ("nemotron_h", "none"),  # blocks of four kinds, which the config only lists
)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    rows = [{"question": f"{a}+{b}?", "answer": str(a + b)} for a in range(5) for b in range(8)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize(("model_type", "adapter"), TRAINED)
def test_one_is_planned_trained_and_exported(
    server: forked.Server, work: Path, tokenizer: Any, model_type: str, adapter: str
) -> None:
    architectures.make_model(model_type, work / "model", tokenizer)
    job = architectures.make_bundle(work, "one", adapter=adapter)
    architectures.run(server, work, job)
    out = work / f"out-one-{adapter}"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["steps"] == 2 and metrics["eval_loss_after"] != metrics["eval_loss_before"]
    report = json.loads((out / "exports/exports.json").read_text())["exports"]["safetensors"]
    assert abs(report["measured"]["logits_difference"]) < 1e-3
    if adapter == "lora":
        assert_every_pair_learned(out / "adapter")


def assert_every_pair_learned(folder: Path) -> None:
    """One whose layer is passed by stays at zero, and what is merged is not what was trained."""
    from safetensors.torch import load_file

    second = {n: t for n, t in load_file(folder / "adapter_model.safetensors").items() if "lora_B" in n}
    assert second and not [name for name, tensor in second.items() if not tensor.any()]


@pytest.mark.parametrize(
    ("model_type", "changes", "told"),
    [
        ("bert", {}, "bert is an encoder (is_decoder: false)"),
        ("xlnet", {}, "XLNetLMHeadModel reads the tokens after the one that it predicts"),
        ("ctrl", {"training": {"gradient_checkpointing": "full"}}, "CTRLLMHeadModel cannot recompute its blocks"),
        ("mamba", {"dataset": {"packing": True}}, "packed rows would run together"),
    ],
)
def test_what_it_cannot_do_is_said_before_the_first_step(
    server: forked.Server, work: Path, tokenizer: Any, model_type: str, changes: dict[str, Any], told: str
) -> None:
    architectures.make_model(model_type, work / "model", tokenizer)
    job = architectures.make_bundle(work, "one", adapter="none", **changes)
    with pytest.raises(AssertionError) as caught:
        architectures.run(server, work, job)
    assert told in str(caught.value) and "step 1" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_two_ranks_shard_the_blocks_that_are_found(server: forked.Server, work: Path, tokenizer: Any) -> None:
    """Bloom's blocks are no ``BloomDecoderLayer``, as the plan had to guess."""
    architectures.make_model("bloom", work / "model", tokenizer)
    changes = {"distributed": {"gpu_count": 2, "type": "fsdp"}, "training": {"global_batch_size": 4}}
    job = architectures.make_bundle(work, "one", adapter="none", **changes)
    architectures.run(server, work, job)
    asserted = json.loads((work / "out-one-none/metrics.json").read_text())["asserted"]
    assert asserted["blocks that are FSDP units"] == 2 and asserted["share of the weights on rank 0"] == 0.5
