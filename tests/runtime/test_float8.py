"""Linear layers in float8: what is converted, how near gradients and losses are, and that weights stay what they were."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from axoc_runtime.assertions import assert_plan
from axoc_runtime.attention.register import register_varlen
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.kernels import float8, put_kernels
from axoc_runtime.kernels.float8 import E4M3, E5M2, Float8Linear
from axoc_runtime.models.adapter import add_adapter

from runtime.jobs import LORA, make_job
from runtime.packs import documents, packed, tiny, together

LINEARS = 7
"""Of a Llama's block."""
BLOCKS = 2
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def registered() -> None:
    register_varlen()


def job_of(tmp_path: Path, **changes: Any) -> Job:
    asked = {"distributed__mixed_precision": "fp8", "expect__float8_linears": BLOCKS * LINEARS}
    return make_job(tmp_path, dataset__packing=True, **asked | changes)


def made(tmp_path: Path, *, adapted: bool = False, **changes: Any) -> Any:
    job = job_of(tmp_path, adapter=LORA if adapted else None, **changes)
    model = tiny("llama", "axoc_varlen")
    model = add_adapter(job, model) if adapted else model
    put_kernels(job, model)
    return model.train()


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float(((found.float() - exact).norm() / exact.norm()).detach())


@pytest.mark.parametrize("rows", [32, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layers_products_are_as_near_as_float8_is(rows: int, dtype: torch.dtype) -> None:
    """Errors of rounding to three and two bits of mantissa: at most 2^-4 and 2^-3, and about half of that as they fall.
    Rows that are no multiple of 16 are filled up. The gradient has values over many orders, as gradients do."""
    draw = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(32, 48).to(dtype)
    given = torch.randn(1, rows, 32, generator=draw).to(dtype).requires_grad_()
    of_output = (1e-4 * torch.randn(1, rows, 48, generator=draw).exp()).to(dtype)
    exact = torch.nn.functional.linear(given.float(), layer.weight.float(), layer.bias.float())
    wanted = torch.autograd.grad(exact, (given, layer.weight, layer.bias), of_output.float())
    layer.__class__ = Float8Linear
    output = layer(given)
    found = torch.autograd.grad(output, (given, layer.weight, layer.bias), of_output)
    assert output.dtype == dtype and [g.dtype for g in found] == [dtype] * 3
    assert 0.005 < error(output, exact) < 0.05, "as far off as e4m3"
    assert 0.01 < error(found[0], wanted[0]) < 0.1 and 0.01 < error(found[1], wanted[1]) < 0.1
    assert error(found[2], wanted[2]) < 0.01, "a bias is added in the layer's own dtype"


@pytest.mark.parametrize("weights_too", [True, False])
def test_products_are_of_float8_factors(monkeypatch: pytest.MonkeyPatch, weights_too: bool) -> None:
    """Forward e4m3 by e4m3, both gradients e5m2 by e4m3, whatever is stored; without the weights' they are exact ones."""
    monkeypatch.setattr(float8, "WEIGHT_GRADIENTS", weights_too)
    multiply, kinds = torch._scaled_mm, []

    def seen(left: torch.Tensor, right: torch.Tensor, **how: Any) -> torch.Tensor:
        kinds.append((left.dtype, right.dtype))
        return multiply(left, right, **how)

    monkeypatch.setattr(torch, "_scaled_mm", seen)
    layer, given = Float8Linear(16, 16, bias=False), torch.randn(16, 16, requires_grad=True)
    layer(given).sum().backward()
    assert kinds == [(E4M3, E4M3), (E5M2, E4M3), (E5M2, E4M3)][: 3 if weights_too else 2]
    exact = given.detach().sum(0).expand(16, 16)
    assert (error(layer.weight.grad, exact) > 1e-3) == weights_too  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_values_of_any_size_have_a_scale(scale: float) -> None:
    layer = Float8Linear(16, 16, bias=False)
    given = (scale * torch.randn(16, 16)).requires_grad_()
    layer(given).sum().backward()
    assert torch.isfinite(given.grad).all() and torch.isfinite(layer.weight.grad).all()


def test_a_value_that_is_no_number_is_not_hidden() -> None:
    layer, given = Float8Linear(16, 16, bias=False), torch.randn(16, 16)
    given[3, 3] = torch.nan
    assert not torch.isfinite(layer(given)).all()


def test_weights_keep_their_names_and_values(tmp_path: Path) -> None:
    """And so does what is saved, which any transformers reads."""
    plain, model = tiny("llama", "axoc_varlen"), made(tmp_path)
    assert sum(isinstance(m, Float8Linear) for m in model.modules()) == BLOCKS * LINEARS
    assert type(model.lm_head) is torch.nn.Linear
    for (name, value), (other, exact) in zip(model.state_dict().items(), plain.state_dict().items(), strict=True):
        assert name == other and type(value) is torch.Tensor and torch.equal(value, exact)
    model.save_pretrained(tmp_path / "saved")
    from transformers import AutoModelForCausalLM

    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), plain.parameters(), strict=True))
    assert not any(isinstance(m, Float8Linear) for m in again.modules())


def test_adapters_stay_in_their_dtype_over_frozen_layers_in_float8(tmp_path: Path) -> None:
    model = made(tmp_path, adapted=True)
    converted = [name for name, m in model.named_modules() if isinstance(m, Float8Linear)]
    assert len(converted) == BLOCKS * LINEARS and all(name.endswith(".base_layer") for name in converted)
    plain = add_adapter(job_of(tmp_path, adapter=LORA), tiny("llama", "axoc_varlen")).train()
    batch = packed(documents(9, 14), 32)
    (loss, found), (exact_loss, exact) = together(model, batch), together(plain, batch)
    assert found.keys() == exact.keys() and all(".lora_" in name for name in found)
    assert abs(loss - exact_loss) < 0.01 * exact_loss
    second = [name for name in found if ".lora_B" in name]  # the first's are zero
    assert all(error(found[name], exact[name]) < 0.3 for name in second)


def test_it_learns_as_it_does_in_16_bits(tmp_path: Path) -> None:
    """Ten steps over three batches: losses that fall by a fifth stay within a hundredth of one another."""
    plain, model = tiny("llama", "axoc_varlen").train(), made(tmp_path)
    batches = [packed(documents(*lengths), 32) for lengths in ((9, 14, 5), (30,), (16, 16))]
    exact, found = (trained(m, batches) for m in (plain, model))
    assert exact[-1] < 0.8 * exact[0]
    assert exact != found
    assert all(abs(a - b) < 0.01 * a for a, b in zip(exact, found, strict=True))


def trained(model: Any, batches: list[dict[str, Any]]) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for index in range(10):
        optimizer.zero_grad()
        batch = batches[index % len(batches)]
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch, num_items_in_batch=(batch["labels"] != -100).sum()).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_what_is_no_plain_linear_layer_stays(tmp_path: Path) -> None:
    """Routers and fused experts of a mixture, and layers of widths that a product does not take."""
    mixture = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1}
    model = tiny("qwen3_moe", "axoc_varlen", **mixture)
    job = job_of(tmp_path, model__decoder_block="Qwen3MoeDecoderLayer")
    put_kernels(job, model)
    names = {n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, Float8Linear)}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj"}
    narrow = tiny("llama", "axoc_varlen", intermediate_size=40)
    assert len(float8.float8_layers(job_of(tmp_path), narrow)) == BLOCKS * 4


def test_another_number_than_was_planned_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import axoc_runtime.assertions as assertions

    for name in ("_world", "_batch", "_wrapper", "_trainable", "_dtypes", "_shards", "_checkpointing"):
        monkeypatch.setattr(assertions, name, lambda *_: iter(()))
    trainer = SimpleNamespace(model=made(tmp_path))
    assert assert_plan(job_of(tmp_path), trainer) == {"linear layers in float8": BLOCKS * LINEARS}
    plain = SimpleNamespace(model=tiny("llama", "axoc_varlen"))
    with pytest.raises(RuntimeFailure, match="linear layers in float8: planned 14, found 0"):
        assert_plan(job_of(tmp_path), plain)


def test_a_gpu_without_float8_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A100")
    with pytest.raises(RuntimeFailure, match="A100 does not multiply float8"):
        put_kernels(job_of(tmp_path, distributed__device="cuda"), tiny("llama", "axoc_varlen"))


class Half(torch.nn.Module):
    """A block without attention: norm, gated product, sum."""

    def __init__(self, hidden: int, wide: int) -> None:
        super().__init__()
        self.norm = torch.nn.RMSNorm(hidden)
        self.gate, self.up = (torch.nn.Linear(hidden, wide, bias=False) for _ in range(2))
        self.down = torch.nn.Linear(wide, hidden, bias=False)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        normal = self.norm(stream)
        made: torch.Tensor = stream + self.down(torch.nn.functional.silu(self.gate(normal)) * self.up(normal))
        return made


@pytest.mark.parametrize("converted", [True, False])
def test_compiled_nothing_of_a_products_input_is_kept(converted: bool) -> None:
    """As the planner counts it (compiler/axoc/cost/float8.py): the stream, a number a row, gate and up; in 16 bits the norm's
    output and the gated product as well. torch's partitioner decides it, before any code is made."""
    tokens, hidden, wide = 16, 32, 48
    block = Half(hidden, wide).bfloat16()
    for layer in (block.gate, block.up, block.down) if converted else ():
        layer.__class__ = Float8Linear
    kept: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        if not isinstance(value, torch.nn.Parameter):
            kept[value.data_ptr()] = value.untyped_storage().nbytes()
        return value

    torch._dynamo.reset()
    compiled = torch.compile(block, backend="aot_eager_decomp_partition", dynamic=False)
    stream = torch.randn(1, tokens, hidden, dtype=torch.bfloat16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        output = compiled(stream)
    output.sum().backward()
    rows = [n for n in kept.values() if n > 4]  # scales are a number each
    inputs = 0 if converted else 2 * tokens * (hidden + wide)
    assert sum(rows) == 2 * tokens * (hidden + 2 * wide) + 4 * tokens + inputs


def test_a_trace_says_that_it_is_of_16_bits(tmp_path: Path) -> None:
    from axoc_runtime.trace.extrapolate import assumptions

    (note,) = assumptions(job_of(tmp_path, expect__accelerator="h100-sxm-80gb"))
    assert "float8 are traced in bfloat16" in note


@pytest.mark.slow
def test_two_ranks_have_the_gradients_of_one() -> None:
    """Under DDP and FSDP2: each rank scales by the whole weight."""
    script = Path(__file__).with_name("float8_ranks_script.py")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "runtime"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
