"""Every format of every family that the compiler allows, read back by its consumer: tiny models, nothing mocked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from axoc.facts.exports import GGUF_FAMILIES, GRAPH_FAMILIES, MLX_FAMILIES
from axoc_runtime.exports.report import read_report

from .tiny import run_of

pytestmark = pytest.mark.slow
PIECES = ("mistral", "gemma2", "gemma3", "phi3")
"""Families that are tried with SentencePiece's tokens; the others with byte-level BPE."""
BUILDER = ("llama", "mistral", "qwen2", "qwen3", "gemma2")
"""Whose ONNX is made by onnxruntime-genai's builder; that of the others takes torch.onnx several seconds."""
ALL = ("safetensors", "pytorch", "vllm", "gguf", "gguf:q4_k_m", "onnx", "onnx:int4", "ort", "openvino", "tensorrt")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Exported in every format at once."""
    from axoc_runtime.exports.run import export

    run = run_of("llama", tmp_path_factory.mktemp("llama"))
    (run / "metrics.json").write_text(json.dumps({"perplexity_before": 9.0, "perplexity_after": 7.5}))
    (run / "provenance/run.json").write_text(
        json.dumps(
            {
                "name": "tickets",
                "spec_digest": "sha256:abc",
                "axoc_version": "0.1.0",
                "objective": "sft",
                "adapter": "lora, rank 16",
                "base": {"id": "models/base", "revision": None, "licence": "apache-2.0", "licence_file": "LICENSE"},
                "data": [{"path": "data.jsonl", "fingerprints": ["data.jsonl:12:ff"]}],
            }
        )
    )
    (run / "provenance/axoc.bundle.json").write_text(json.dumps({"bundle_digest": "sha256:def"}))
    export(run, ALL)
    yield run


@pytest.mark.parametrize(
    ("name", "consumer"),
    [
        ("safetensors", "transformers"),
        ("pytorch", "torch.load"),
        ("vllm", "transformers"),
        ("gguf", "llama.cpp"),
        ("gguf:q4_k_m", "llama.cpp"),
        ("onnx", "onnxruntime-genai"),
        ("onnx:int4", "onnxruntime-genai"),
        ("ort", "onnxruntime"),
        ("openvino", "openvino"),
        ("tensorrt", "not checked: no TensorRT here"),
    ],
)
def test_a_format_is_measured_by_its_consumer(llama: Path, name: str, consumer: str) -> None:
    row = read_report(llama)[name]
    assert consumer in row["checked_by"]
    assert row["measured_on"] == "held-out rows"
    assert row["measured"]["tokens"] > 100
    if ":" not in name:
        assert abs(row["measured"]["perplexity_difference"]) < 0.01
        assert row["measured"]["same_top_token"] > 0.97
    assert row["size_bytes"] == sum(
        f.stat().st_size for f in (llama / "exports" / row["folder"]).iterdir()
    ) - card_size(llama, row)


def card_size(run: Path, row: dict[str, Any]) -> int:
    return (run / "exports" / row["folder"] / "README.md").stat().st_size


def test_quantized_files_are_smaller(llama: Path) -> None:
    sizes = {name: row["size_bytes"] for name, row in read_report(llama).items()}
    assert sizes["gguf:q4_k_m"] < 0.8 * sizes["gguf"] < sizes["safetensors"]
    assert sizes["onnx:int4"] < sizes["onnx"]


def test_nothing_is_left_of_the_scratch(llama: Path) -> None:
    assert sorted(p.name for p in (llama / "exports").iterdir()) == sorted(
        [*(name.replace(":", "-") for name in ALL), "exports.json"]
    )


def test_the_card_says_what_the_model_was_made_from(llama: Path) -> None:
    card = (llama / "exports/gguf/README.md").read_text()
    wanted = ("sha256:abc", "sha256:def", "data.jsonl:12:ff", "models/base", "apache-2.0", "lora, rank 16", "7.5 after")
    assert [w for w in wanted if w not in card] == []
    assert card.startswith('---\nlicense: "apache-2.0"\n')
    assert "llama.cpp b" in card and "ollama create" in card


def test_the_modelfile_renders_as_the_chat_template(llama: Path) -> None:
    text = (llama / "exports/gguf/Modelfile").read_text()
    assert text.startswith("FROM ./model.gguf\n")
    assert '{{ if eq .Role "user" }}' not in text  # the system's turn comes first
    assert '{{ else if eq .Role "user" }}<s>user\n{{ .Content }}</s>\n' in text
    assert 'PARAMETER stop "</s>"' in text


@pytest.mark.parametrize("family", [f for f in GGUF_FAMILIES if f != "llama"])
def test_llama_cpp_computes_every_allowed_family(family: str, tmp_path: Path) -> None:
    assert measured(family, tmp_path, "gguf")["logits_difference"] < 0.005


def test_llama_cpp_computes_scaled_rotations(tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    assert measured("llama", tmp_path, "gguf", rope_parameters=scaling)["logits_difference"] < 0.005


@pytest.mark.parametrize("family", [f for f in BUILDER if f != "llama"])
def test_onnxruntime_genai_computes_what_its_builder_knows(family: str, tmp_path: Path) -> None:
    assert measured(family, tmp_path, "onnx")["logits_difference"] < 1e-3


def test_what_the_builder_does_not_know_is_made_by_torch(tmp_path: Path) -> None:
    assert "gpt_neox" in GRAPH_FAMILIES
    assert measured("gpt_neox", tmp_path, "onnx")["logits_difference"] < 1e-4
    assert "torch.onnx" in read_report(tmp_path)["onnx"]["notes"][0]


def test_openvino_computes_a_sliding_window(tmp_path: Path) -> None:
    assert measured("gemma2", tmp_path, "openvino")["logits_difference"] < 0.005


@pytest.mark.skipif(find_spec("mlx_lm") is None, reason="mlx-lm is not installed: its wheels need glibc 2.35")
@pytest.mark.parametrize("family", MLX_FAMILIES)
def test_mlx_computes_every_allowed_family(family: str, tmp_path: Path) -> None:
    assert measured(family, tmp_path, "mlx")["logits_difference"] < 1e-3


@pytest.mark.parametrize("method", ["fp8", "gptq"])
def test_compressed_tensors_are_read_by_transformers(method: str, tmp_path: Path) -> None:
    measured("qwen2", tmp_path, f"vllm:{method}")
    row = read_report(tmp_path)[f"vllm:{method}"]
    assert "compressed-tensors" in row["checked_by"]
    config = json.loads((tmp_path / "exports" / row["folder"] / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"


def test_shards_are_held_against_the_trained_tensors(tmp_path: Path) -> None:
    from axoc_runtime.exports.base import CannotExport
    from axoc_runtime.exports.hugging_face import same_weights, write_folder
    from axoc_runtime.exports.source import open_source
    from safetensors.torch import load_file, save_file

    source, target = open_source(run_of("llama", tmp_path), tmp_path), tmp_path / "shards"
    write_folder(source, target, shard_bytes=300_000)
    shards = sorted(target.glob("*.safetensors"))
    assert len(shards) > 2 and (target / "model.safetensors.index.json").is_file()
    same_weights(source, target)
    tensors = load_file(shards[1])
    name = next(iter(tensors))
    tensors[name][0] += 1e-3
    save_file(tensors, shards[1], metadata={"format": "pt"})
    with pytest.raises(CannotExport, match="is not the trained one"):
        same_weights(source, target)


def test_a_reward_model_keeps_its_head_and_is_not_written_as_a_language_model(tmp_path: Path) -> None:
    from axoc_runtime.errors import RuntimeFailure
    from axoc_runtime.exports.run import export
    from transformers import AutoConfig, AutoModelForSequenceClassification

    run = run_of("llama", tmp_path)
    config = AutoConfig.from_pretrained(run / "final", num_labels=1, pad_token_id=0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(run / "final")
    export(run, ["safetensors", "pytorch"])
    row = read_report(run)["pytorch"]["measured"]
    assert row["perplexity"] is None and row["logits_difference"] == 0.0
    with pytest.raises(RuntimeFailure, match="no vocabulary to predict"):
        export(run, ["gguf"])


def measured(family: str, folder: Path, format_: str, **changes: Any) -> dict[str, Any]:
    from axoc_runtime.exports.run import export

    export(run_of(family, folder, pieces=family in PIECES, **changes), [format_])
    found: dict[str, Any] = read_report(folder)[format_]["measured"]
    return found
