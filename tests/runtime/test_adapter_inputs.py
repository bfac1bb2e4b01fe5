"""Inputs of adapters left as they come: the same training to the last bit, one copy of the input kept, no cast in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from axoc_runtime.checkpoint.complete import resume_key
from axoc_runtime.job import read_job
from axoc_runtime.models.adapter import add_adapter
from exports.tiny import config_of

from .jobs import LORA, job_value, make_job

pytestmark = pytest.mark.slow
VOCABULARY = 256
IDS = torch.randint(3, 200, (2, 24), generator=torch.Generator().manual_seed(5))
WAYS: dict[str, tuple[str, torch.dtype, dict[str, Any]]] = {
    "lora": ("llama", torch.bfloat16, {}),
    "rslora beside a head": ("qwen2", torch.bfloat16, {"use_rslora": True, "modules_to_save": ["lm_head"]}),
    "pissa": ("llama", torch.bfloat16, {"init": "pissa"}),
    "float32 weights": ("gemma2", torch.float32, {}),
    "a norm in float32": ("gpt2", torch.bfloat16, {}),
    "experts": ("mixtral", torch.bfloat16, {}),
    "nf4": ("llama", torch.bfloat16, {}),
    "dropout": ("llama", torch.bfloat16, {"dropout": 0.5}),
}
"""A CPU draws the same mask in either dtype, and of a half its factor is exact."""


def adapted(folder: Path, family: str, dtype: torch.dtype, *, four_bit: bool = False, **adapter: Any) -> Any:
    """With second matrices that are not zero: else the first ones have no gradient."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(family, vocab_size=VOCABULARY), dtype=dtype)
    if four_bit:
        _quantize(model)
    model = add_adapter(make_job(folder, adapter=LORA | adapter), model)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model.train()


def _quantize(model: Any) -> None:
    import bitsandbytes as bnb

    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name, linear in list(part.named_children()):
                if isinstance(linear, torch.nn.Linear):
                    sizes, options = (linear.in_features, linear.out_features), {"quant_type": "nf4", "bias": False}
                    four = bnb.nn.Linear4bit(*sizes, compute_dtype=torch.bfloat16, **options)
                    four.weight = bnb.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4").to("cpu")
                    setattr(part, name, four)
    model.is_loaded_in_4bit = True


def learned(model: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    losses = []
    torch.manual_seed(3)  # of dropout
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
        losses.append(float(loss.detach()))
    return losses, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("way", WAYS)
def test_losses_and_gradients_are_the_same_to_the_last_bit(tmp_path: Path, way: str) -> None:
    family, dtype, adapter = WAYS[way]
    four = way == "nf4"
    (was, theirs), (found, ours) = (
        learned(adapted(tmp_path, family, dtype, four_bit=four, casts_inputs=casts, **adapter))
        for casts in (True, False)
    )
    assert found == was and ours.keys() == theirs.keys() and len(ours) > 4
    assert all(torch.equal(gradient, theirs[name]) for name, gradient in ours.items())


@pytest.mark.parametrize("way", [w for w in WAYS if w != "nf4"])
def test_a_factor_between_the_matrices_is_the_same_to_the_last_bit(tmp_path: Path, way: str) -> None:
    family, dtype, adapter = WAYS[way]
    (was, theirs), (found, ours) = (
        learned(adapted(tmp_path, family, dtype, casts_inputs=False, scales_between=between, **adapter))
        for between in (False, True)
    )
    assert found == was and ours.keys() == theirs.keys()
    assert all(torch.equal(gradient, theirs[name]) for name, gradient in ours.items())


def test_a_factor_that_is_no_power_of_two_would_not_be(tmp_path: Path) -> None:
    (_, theirs), (_, ours) = (
        learned(adapted(tmp_path, "llama", torch.bfloat16, alpha=12.0, scales_between=between))
        for between in (False, True)
    )
    assert not all(torch.equal(gradient, theirs[name]) for name, gradient in ours.items())


def test_a_factor_is_taken_of_few_numbers(tmp_path: Path) -> None:
    model = adapted(tmp_path, "llama", torch.bfloat16, casts_inputs=False, scales_between=True)
    layer = model.get_base_model().model.layers[0].mlp.gate_proj
    with torch.profiler.profile(record_shapes=True) as seen, torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(3, 7, 128).bfloat16())
    products = [e.input_shapes[0] for e in seen.events() if e.name == "aten::mul"]
    assert products == [[3, 7, LORA["rank"]]]
    with model.disable_adapter(), torch.autocast("cpu", torch.bfloat16):
        value = torch.randn(3, 7, 128).bfloat16()
        assert torch.equal(layer(value), layer.base_layer(value))


@pytest.mark.parametrize("changed", [{"use_dora": True}, {"dropout": 0.1}])
def test_where_something_is_between_the_casts_it_is_not_the_same(tmp_path: Path, changed: dict[str, Any]) -> None:
    """Why the compiler leaves them on there."""
    (was, _), (found, _) = (
        learned(adapted(tmp_path, "llama", torch.bfloat16, casts_inputs=casts, **changed)) for casts in (True, False)
    )
    assert found != was


def kept(model: Any, value: torch.Tensor) -> list[torch.Tensor]:
    """Tensors of the input's size that query, key and value layers save for their backward."""
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.data_ptr()] = tensor
        return tensor

    attention = model.get_base_model().model.layers[0].self_attn
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), torch.autocast("cpu", torch.bfloat16):
        made = [layer(value) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
    assert all(result.dtype == torch.bfloat16 for result in made)
    return [t for t in saved.values() if t.numel() == value.numel()]


@pytest.mark.parametrize(("casts", "copies"), [(True, 3), (False, 0)])
def test_all_adapters_of_an_input_keep_that_one(tmp_path: Path, casts: bool, copies: int) -> None:
    model = adapted(tmp_path, "llama", torch.bfloat16, casts_inputs=casts)
    value = torch.randn(3, 7, 128).bfloat16().requires_grad_()
    found = kept(model, value)
    assert len([t for t in found if t.data_ptr() != value.data_ptr()]) == copies
    assert all(t.dtype == torch.bfloat16 for t in found)


def test_without_autocast_they_are_cast_as_ever(tmp_path: Path) -> None:
    """Such as answers that are sampled from the model itself: torch multiplies no bfloat16 by float32."""
    ours = adapted(tmp_path, "llama", torch.bfloat16, casts_inputs=False)(input_ids=IDS).logits
    assert torch.equal(ours, adapted(tmp_path, "llama", torch.bfloat16)(input_ids=IDS).logits)


def test_an_older_bundle_casts_and_a_checkpoint_is_anyones(tmp_path: Path) -> None:
    """It changes nothing of what is trained, so that runs of both kinds go on from one another's checkpoints."""
    import json

    value = job_value(adapter={k: v for k, v in LORA.items() if k != "casts_inputs"})
    (tmp_path / "job.json").write_text(json.dumps(value))
    older = read_job(tmp_path / "job.json")
    assert older.adapter is not None and older.adapter.casts_inputs
    newer = make_job(tmp_path, adapter=LORA | {"casts_inputs": False})
    assert newer.adapter is not None and not newer.adapter.casts_inputs
    assert resume_key(older) == resume_key(newer) and resume_key(older)["adapter"]["rank"] == LORA["rank"]
