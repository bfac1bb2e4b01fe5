"""What the base's own configuration rules out is said by preflight, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from asking import LORA, plan
from axoc.ir.plan import NoPlan, Plan
from axoc.ir.request import ExportRequest
from axoc_runtime import preflight
from axoc_runtime.errors import RuntimeFailure
from runtime.jobs import make_job

from .tiny import config_of

WINDOWED = {"sliding_window": 64, "max_position_embeddings": 256}


def ready(folder: Path, family: str, formats: list[str], **changes: Any) -> Any:
    """A job on a model folder that has its configuration; weights are not looked at."""
    config_of(family, vocab_size=1000, **changes).save_pretrained(folder / "model")
    (folder / "model/model.safetensors").touch()
    return make_job(folder, export={"formats": formats, "quantization": "none"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "changes", "told"),
    [
        ("mistral", WINDOWED, "without its sliding window of 64"),
        ("gemma2", {"query_pre_attn_scalar": 8}, "attention scale"),
        ("qwen3_moe", {"norm_topk_prob": False}, "norm_topk_prob"),
        ("qwen3_moe", {"mlp_only_layers": [0]}, "experts in every layer"),
        ("gpt2", {}, "no GGUF layout is known for GPT2LMHeadModel"),
    ],
)
def test_what_the_configuration_tells_is_said_before_training(
    tmp_path: Path, family: str, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        preflight.run(ready(tmp_path, family, ["safetensors", "gguf", "vllm"], **changes))
    assert caught.value.exit_code == 1
    assert told in str(caught.value) and "export to gguf" in str(caught.value)
    assert "vllm" not in str(caught.value)
    assert "out of export.formats" in caught.value.render()


@pytest.mark.slow
def test_what_can_be_made_is_not_refused(tmp_path: Path) -> None:
    preflight.run(ready(tmp_path, "mistral", ["gguf", "vllm:gptq", "onnx"], sliding_window=None))


@pytest.mark.slow
def test_a_reward_models_head_is_known_before_training(tmp_path: Path) -> None:
    job = ready(tmp_path, "llama", ["onnx"])
    made = make_job(tmp_path, export={"formats": ["onnx"], "quantization": "none"}, training__objective="reward")
    assert made.output == job.output
    with pytest.raises(RuntimeFailure, match="no vocabulary to predict"):
        preflight.run(made)


def exporting(*formats: str) -> dict[str, Any]:
    return {"export": ExportRequest(formats=formats, quantization="none")}


def test_a_window_that_llama_cpp_does_not_compute_is_refused_when_it_is_planned() -> None:
    refused = plan("mistralai/Mistral-7B-v0.1", "h100-sxm-80gb:8", **exporting("gguf"))
    assert isinstance(refused, NoPlan)
    assert [r for r in refused.rejections if r.rule == "export-architecture" and "window of 4,096" in r.reason]
    assert isinstance(plan("mistralai/Mistral-7B-v0.3", "h100-sxm-80gb:8", **exporting("gguf")), Plan)


@pytest.mark.parametrize(
    ("model", "formats", "told"),
    [
        (
            "mistralai/Mixtral-8x7B-v0.1",
            ("onnx", "openvino"),
            "onnx, openvino cannot be made of mixtral: neither torch.onnx",
        ),
        ("deepseek-ai/DeepSeek-V2-Lite", ("gguf",), "latent attention"),
        ("EleutherAI/pythia-160m", ("onnx:int4",), "onnx without that can be made"),
        ("google/gemma-2-2b", ("mlx",), "without its sliding window"),
    ],
)
def test_the_reason_is_told(model: str, formats: tuple[str, ...], told: str) -> None:
    refused = plan(model, "h200-sxm-141gb:8", **exporting(*formats), adapter=LORA)
    assert isinstance(refused, NoPlan)
    assert [r.reason for r in refused.rejections if told in r.reason]
