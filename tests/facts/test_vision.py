"""What is counted of models that see, beside what transformers builds from the same configs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asking import plan
from axoc.cost import sight
from axoc.cost.sizes import sizes_of
from axoc.errors import UserError
from axoc.facts.catalog import find_entry
from axoc.facts.models import lookup_model
from axoc.facts.parameters import targeted_linears
from axoc.ir.plan import Plan
from seeing import MODELS

LLAVA_7B: dict[str, Any] = {
    "model_type": "llava",
    "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064},
    "vision_config": {
        "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "image_size": 336,
        "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768, "vocab_size": 32000,
    },
}  # fmt: skip
"""As llava-hf/llava-1.5-7b-hf publishes it."""
SIGLIP = LLAVA_7B | {"vision_config": LLAVA_7B["vision_config"] | {"model_type": "siglip_vision_model"}}
ROOT = Path(__file__).resolve().parents[2]
SEES = {"model__vision": True, "dataset__type": "vision_chat"}


def configs() -> dict[str, Any]:
    entry = find_entry("google/gemma-3-4b-it")
    assert entry is not None
    return {"llava": LLAVA_7B, "llava-siglip": SIGLIP, "gemma3": dict(entry.config)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llava", "llava-siglip", "gemma3"])
def test_parameters_are_those_that_transformers_makes(name: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = configs()[name]
    facts, _ = lookup_model("m", config, "config.json", "auto", sees=True)
    made = AutoConfig.for_model(**config)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(made)
    model.tie_weights()
    decoder = {id(p): p for p in (*model.get_decoder().parameters(), *model.get_output_embeddings().parameters())}
    sizes = sizes_of(facts, None)
    assert sizes.total == sum(p.numel() for p in model.parameters())
    assert sizes.language == sum(p.numel() for p in decoder.values())
    assert facts.vision is not None
    path = f"{facts.vision.blocks}.0.self_attn.q_proj"
    assert model.get_submodule(path).out_features == facts.num_heads * facts.head_dim
    (found,) = targeted_linears(facts, f"{facts.vision.blocks}.0.self_attn.q_proj".replace(".", r"\."))
    assert found.layers == 1


def test_published_totals() -> None:
    """Of the hub's safetensors indices: llava-1.5-7b-hf and gemma-3-4b."""
    for name, published in (("llava", 7_063_427_072), ("gemma3", 4_300_079_472)):
        facts, _ = lookup_model("m", configs()[name], "config.json", "auto", sees=True)
        assert sizes_of(facts, None).total == published


def test_a_model_that_does_not_see_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model_type llama are not known to see"):
        lookup_model("m", {"model_type": "llama"}, "config.json", "auto", sees=True)
    strange = LLAVA_7B | {"text_config": {"model_type": "mamba"}}
    with pytest.raises(UserError, match="decoder of this llava is of model_type mamba"):
        lookup_model("m", strange, "config.json", "auto", sees=True)
    with pytest.raises(UserError, match=r"vision_config\.patch_size"):
        vision = LLAVA_7B["vision_config"] | {"patch_size": 0}
        lookup_model("m", LLAVA_7B | {"vision_config": vision}, "config.json", "auto", sees=True)


def test_a_plan_counts_the_tower_its_pixels_and_its_time() -> None:
    model, one = "google/gemma-3-4b-pt", {"training__micro_batch_size": 1, "training__gradient_checkpointing": "full"}
    seen = plan(model, "h100-sxm-80gb:8", distributed__type="ddp", **SEES, **one)
    text = plan(model, "h100-sxm-80gb:8", distributed__type="ddp", dataset__packing=False, model__kernels="none", **one)
    assert isinstance(seen, Plan) and isinstance(text, Plan)
    assert seen.model.vision is not None and text.model.vision is None
    assert seen.schedule.parameters - text.schedule.parameters == seen.model.vision.parameters
    assert seen.schedule.trainable_parameters == text.schedule.trainable_parameters
    phases = {phase.phase: {i.item: i.bytes for i in phase.items} for phase in seen.chosen.estimate.memory.by_phase}
    # 2,048 tokens are 8 images of 4,096 patches: 588 values of 4 bytes each, and 2,560 of 2 bytes for each token
    held = 8 * 4096 * 14 * 14 * 3 * 4 + 2048 * 2560 * 2
    assert phases["forward"][sight.ITEM] == held
    assert sight.ITEM not in phases["optimizer"]
    assert phases[sight.PHASE]["working set"] == 8 * 4096 * (4 * 1152 + 2 * 4304) * 2
    assert dict(seen.chosen.estimate.time.breakdown)[sight.SECONDS] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_towers_peak_is_that_of_its_tensors(name: str, tmp_path: Path) -> None:
    """Of all tensors that an operation makes, for as long as Python holds them."""
    import torch
    from live_tensors import Live

    model, images = MODELS[name](tmp_path).requires_grad_(False), 4
    facts, _ = lookup_model("m", json.loads((tmp_path / "config.json").read_text()), "config.json", "auto", sees=True)
    vision = facts.vision
    assert vision is not None
    scenario = SimpleNamespace(model=facts, seq_length=images * vision.tokens_per_tile, weight_bytes=4, compute_bytes=4)
    scenario.objective = SimpleNamespace(sequences_per_row=1)
    pixels = torch.randn(images, 3, 28, 28)
    with Live(*model.parameters(), *model.buffers(), pixels) as live:
        model.model.get_image_features(pixel_values=pixels)
    found = sight._working(scenario, SimpleNamespace(micro_batch=1))  # type: ignore[arg-type]
    assert float(found) == live.peak


def test_the_example_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    from axoc import driver

    monkeypatch.chdir(ROOT)
    made = driver.plan(Path("examples/images/spec.yaml"), "h100-sxm-80gb").result
    assert isinstance(made, Plan) and made.request.model.vision and made.chosen.candidate.strategy == "single"


def test_rows_of_one_kind(tmp_path: Path) -> None:
    from axoc.inputs import read_inputs

    row = {
        "messages": [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "A."}],
        "images": ["a.png"],
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "m").mkdir()
    (tmp_path / "m/config.json").write_text(json.dumps(LLAVA_7B))
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"model: {tmp_path / 'm'}\ndataset: {{path: {tmp_path / 'a.jsonl'}}}\n")
    assert read_inputs(spec, None, frozen=False).request.model.vision
    spec.write_text(
        f"model: {tmp_path / 'm'}\ndataset: [{{path: {tmp_path / 'a.jsonl'}}}, {{path: b.jsonl, type: alpaca}}]\n"
    )
    with pytest.raises(UserError, match=r"those of b\.jsonl have none"):
        read_inputs(spec, None, frozen=False)
