"""Every format of every family that the compiler allows, read back by its consumer: tiny models, nothing mocked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from axoc.facts.exports import FORMATS, NONE, asked
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.exports.report import read_report
from axoc_runtime.exports.run import export
from combinations import Written, ran

from .tiny import FAMILIES, run_of

pytestmark = pytest.mark.slow
PIECES = ("mistral", "gemma2", "gemma3", "phi3")
"""Families that are tried with SentencePiece's tokens; the others with byte-level BPE."""
QUANTIZED = ("gguf:q4_k_m", "onnx:int4", "vllm:fp8", "vllm:int8", "vllm:gptq")


def allowed(family: str, *, mlx: bool) -> tuple[str, ...]:
    """That the compiler lets this family be exported to: each format, and a quantization of each kind."""
    kinds = ("mlx", "mlx:int4") if mlx else (*(f for f in FORMATS if f != "mlx"), *QUANTIZED)
    return tuple(a.written for a in asked(kinds, NONE) if a.why_not(family) is None)


ALL = allowed("llama", mlx=False)
TRACED = ("onnx", "ort", "openvino", "tensorrt")
"""Formats of which most of the time is torch's, which traces the modelling code block by block and up to five times: they are tried
with a block of each kind, llama's with two of a kind. Gemma 3 has six blocks where llama.cpp, which counts them, computes it."""
A_BLOCK = {"num_hidden_layers": 1}
A_BLOCK_OF_EACH_KIND: dict[str, dict[str, Any]] = {
    "gemma2": {},
    "gemma3": {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt2": {"n_layer": 1},
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Exported in every format at once."""
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


CLOSE = {"gguf": 0.005, "onnx": 1e-3, "ort": 1e-3, "tensorrt": 1e-3, "openvino": 0.02, "mlx": 1e-3, "vllm": 0.01}
"""Largest relative difference of logits without a quantization: of what is stored in fp32, and of what in 16 bits."""


def of_every_family(*, mlx: bool) -> list[Any]:
    marks = [(f, pytest.mark.combination(family=f, export=allowed(f, mlx=mlx))) for f in FAMILIES]
    return [pytest.param(f, marks=mark) for f, mark in marks if allowed(f, mlx=mlx)]


@pytest.mark.parametrize("family", of_every_family(mlx=False))
def test_every_format_of_a_family_is_computed_by_its_consumer(
    family: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    formats = allowed(family, mlx=False)
    if family == "llama":  # in every format already
        found = measured_of(family, request.getfixturevalue("llama"))
    else:
        flat = [f for f in formats if f in TRACED or (family == "gemma3" and not f.startswith("gguf"))]
        found = measured(family, tmp_path / "deep", *(f for f in formats if f not in flat))
        if flat:
            found |= measured(family, tmp_path / "flat", *flat, **A_BLOCK_OF_EACH_KIND.get(family, A_BLOCK))
    assert found.keys() == set(formats)
    far = {
        n: m["logits_difference"]
        for n, m in found.items()
        if m["logits_difference"] > CLOSE.get(n, 0.0 if ":" not in n else 0.75)
    }
    assert not far
    if family == "gpt2":
        made = read_report(tmp_path / "flat")["onnx"]["notes"][0]
        assert "torch.onnx" in made, "what the builder does not know is made by torch"


@pytest.mark.skipif(find_spec("mlx_lm") is None, reason="mlx-lm is not installed: its wheels need glibc 2.35")
@pytest.mark.parametrize("family", of_every_family(mlx=True))
def test_mlx_computes_every_allowed_family(family: str, tmp_path: Path) -> None:
    found = measured(family, tmp_path, *allowed(family, mlx=True))
    assert found["mlx"]["logits_difference"] < CLOSE["mlx"]
    assert found["mlx:int4"]["logits_difference"] < 0.75


def test_llama_cpp_computes_scaled_rotations(tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    assert measured("llama", tmp_path, "gguf", rope_parameters=scaling)["gguf"]["logits_difference"] < CLOSE["gguf"]


@pytest.mark.combination(family="qwen2", export="{way}")
@pytest.mark.parametrize("way", ["vllm:gptq", "vllm:awq"])
def test_compressed_tensors_are_read_by_transformers(tmp_path: Path, way: str) -> None:
    """AWQ too on a CPU, which llm-compressor alone does not do."""
    measured("qwen2", tmp_path, way)
    row = read_report(tmp_path)[way]
    assert "compressed-tensors" in row["checked_by"]
    config = json.loads((tmp_path / "exports" / row["folder"] / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"


@pytest.mark.parametrize(("family", "told"), [("mixtral", "its logits are"), ("gpt2", "has none")])
def test_a_quantization_that_is_none_or_breaks_the_model_is_not_kept(family: str, told: str, tmp_path: Path) -> None:
    """Which planning refuses already: what the bound is for."""
    with pytest.raises(RuntimeFailure, match=told):
        measured(family, tmp_path, "vllm:fp8")
    assert not list((tmp_path / "exports").glob("vllm*"))


def test_shards_are_held_against_the_trained_tensors(tmp_path: Path) -> None:
    from axoc_runtime.exports.base import CannotExport
    from axoc_runtime.exports.hugging_face import same_weights, write_folder
    from axoc_runtime.exports.source import Source
    from safetensors.torch import load_file, save_file

    source, target = Source(run=run_of("llama", tmp_path), work=tmp_path), tmp_path / "shards"
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
    from transformers import AutoConfig, AutoModelForSequenceClassification

    run = run_of("llama", tmp_path)
    config = AutoConfig.from_pretrained(run / "final", num_labels=1, pad_token_id=0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(run / "final")
    export(run, ["safetensors", "pytorch"])
    row = read_report(run)["pytorch"]["measured"]
    assert row["perplexity"] is None and row["logits_difference"] == 0.0
    with pytest.raises(RuntimeFailure, match="no vocabulary to predict"):
        export(run, ["gguf"])


def measured(family: str, folder: Path, *formats: str, **changes: Any) -> dict[str, Any]:
    """Format -> what its consumer measured."""
    export(run_of(family, folder, pieces=family in PIECES, **changes), formats)
    return measured_of(family, folder)


def measured_of(family: str, folder: Path) -> dict[str, Any]:
    found = {name: row["measured"] for name, row in read_report(folder).items()}
    ran(*(Written(family, name) for name, how in found.items() if how is not None))
    return found
