"""Bases that are stored quantized: an adapter is trained beside them, and merged into exact weights, for real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from axoc.facts.stored import read_stored
from axoc_runtime.exports.registry import exporter
from axoc_runtime.exports.source import Source
from axoc_runtime.models import load, stored
from axoc_runtime.models.merge import merge
from exports.tiny import run_of
from runtime.jobs import LORA, make_job

pytestmark = pytest.mark.slow
NF4 = {"method": "nf4", "double_quantization": True, "options": {}}
INT8 = {"method": "int8", "double_quantization": False, "options": {}}
WAYS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "nf4": ("safetensors", NF4), "llm_int8": ("safetensors", INT8), "gptq": ("vllm", None), "fp8": ("vllm", None),
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of("llama", tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("way", WAYS)
def test_an_adapter_is_trained_beside_stored_weights_and_merged_into_exact_ones(
    run: Path, tmp_path: Path, way: str
) -> None:
    format_, quantization = WAYS[way]
    base = tmp_path / "base"
    base.mkdir()
    exporter(format_).write(Source(run=run, work=tmp_path / "work"), base, way)
    planned = read_stored(json.loads((base / "config.json").read_text())["quantization_config"])
    assert planned is not None and planned.method == (quantization or {}).get("method")
    if quantization is not None and way == "nf4":
        assert planned.double_quantization is quantization["double_quantization"]
    job = make_job(tmp_path, model__id=str(base), model__quantization=quantization, adapter=LORA)
    model = load.load_trainable(job, torch.device("cpu"))
    layer = model.base_model.model.model.layers[0].self_attn.q_proj.base_layer
    assert type(layer).__name__ == {"nf4": "Linear4bit", "llm_int8": "Linear8bitLt"}.get(way, "Linear")
    if quantization is None:
        assert {n for n, _ in layer.named_parameters()} == {"weight"} and layer.weight.dtype == torch.float32
    losses = _train(model)
    assert losses[-1] < losses[0] - 0.2
    model.save_pretrained(job.output / "adapter")
    merge(job)  # raises where the saved model computes another thing
    config = json.loads((job.output / "final" / "config.json").read_text())
    assert "quantization_config" not in config
    assert stored.stored_by(make_job(tmp_path, model__id=str(job.output / "final"))) is None


def _train(model: Any) -> list[float]:
    ids = torch.arange(20, 60)[None]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    losses = []
    for _ in range(8):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return losses


def test_four_bits_are_computed_in_the_jobs_dtype_and_not_in_that_of_the_file(run: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    exporter("safetensors").write(Source(run=run, work=tmp_path / "work"), base, "nf4")
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"]["bnb_4bit_compute_dtype"] = "float32"  # bitsandbytes' own default
    (base / "config.json").write_text(json.dumps(config))
    job = make_job(tmp_path, model__id=str(base), model__quantization=NF4, distributed__mixed_precision="bf16")
    model: Any = load.load_base(job, torch.device("cpu"))
    assert model.model.layers[0].mlp.up_proj.compute_dtype == torch.bfloat16


def test_exact_weights_and_what_is_not_there_are_stored_by_nobody(run: Path, tmp_path: Path) -> None:
    assert stored.stored_by(make_job(tmp_path, model__id=str(run / "final"))) is None
    assert stored.stored_by(make_job(tmp_path, model__id=str(tmp_path / "nowhere"))) is None
