"""lookup_model: catalog ids and aliases, closed models, contradictions, plugins, and what it costs to import."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from axoc.errors import UserError
from axoc.facts.closed import is_closed
from axoc.facts.families import registry
from axoc.facts.families.llama import LlamaFamily
from axoc.facts.models import lookup_model

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "vocab_size": 512,
}


def refusal(*args: Any) -> str:
    with pytest.raises(UserError) as caught:
        lookup_model(*args)
    return caught.value.render()


@pytest.mark.parametrize(
    ("model_id", "layers"),
    [
        ("meta-llama/Meta-Llama-3-70B", 80),
        ("META-LLAMA/llama-3.1-8b-INSTRUCT", 32),
        ("unsloth/Llama-3.2-1B", 16),
        ("NousResearch/Llama-2-13b-hf", 40),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 30),
        ("gpt2", 12),
        ("deepseek-ai/DeepSeek-R1", 61),
        ("google/gemma-3-27b-it", 62),
    ],
)
def test_ids_and_aliases_whatever_their_case(model_id: str, layers: int) -> None:
    facts, _ = lookup_model(model_id, None, None, "auto")
    assert (facts.id, facts.num_layers) == (model_id, layers)
    assert facts.license != "unknown" and facts.source


def test_unknown_id_names_close_ones_and_the_fix() -> None:
    text = refusal("meta-lama/Llama-3.1-8B", None, None, "auto")
    assert "meta-llama/Llama-3.1-8B" in text and "model.config" in text
    assert "did you mean" not in refusal("zzz/qqqqqqqqq", None, None, "auto")


def test_no_model_at_all() -> None:
    assert "model.config" in refusal(None, None, None, "auto")


@pytest.mark.parametrize(
    "model_id",
    [
        "claude-3-5-sonnet-20241022",
        "anthropic/claude-sonnet-4",
        "us.anthropic.claude-3-haiku-20240307-v1:0",
        "gpt-4o-mini",
        "gpt-4",
        "GPT-4.1",
        "openai/gpt-4o",
        "gpt-3.5-turbo",
        "gpt-5",
        "o1",
        "o3-mini",
        "gemini-1.5-pro",
        "google/gemini-2.0-flash",
        "grok-4",
    ],
)
def test_closed_models_have_no_weights(model_id: str) -> None:
    text = refusal(model_id, None, None, "auto")
    assert "no weights exist to train" in text
    substitute = text.split("model.id: ")[1].strip()
    assert lookup_model(substitute, None, None, "auto")[0].num_layers > 0


def test_small_closed_models_get_a_small_substitute() -> None:
    assert "8B" in refusal("gpt-4o-mini", None, None, "auto")
    assert "70B" in refusal("claude-opus-4", None, None, "auto")


@pytest.mark.parametrize(
    "model_id",
    [
        "gpt2",
        "openai-community/gpt2-xl",
        "openai/gpt-oss-20b",
        "./claude-notes",
        "someone/claude-distill-7b",
        "google/gemma-2-2b",
        "xai-org/grok-1",
        "EleutherAI/gpt-neox-20b",
        "models/o1",
        "mistralai/Mistral-7B-v0.1",
    ],
)
def test_open_models_are_not_taken_for_closed_ones(model_id: str) -> None:
    assert not is_closed(model_id)


def test_type_must_be_a_family_and_must_agree_with_the_config() -> None:
    assert "did you mean llama?" in refusal("x", LLAMA, "c.json", "lama")
    contradiction = refusal("x", LLAMA, "c.json", "qwen2")
    assert "model_type is llama" in contradiction and "c.json" in contradiction
    assert lookup_model("x", LLAMA, "c.json", "llama")[0].family == "llama"
    untyped = {k: v for k, v in LLAMA.items() if k != "model_type"}
    assert lookup_model("x", untyped, "c.json", "llama")[0].model_type == "llama"


@pytest.mark.parametrize("model_type", [3, [], {}])
def test_ill_typed_model_type(model_type: Any) -> None:
    assert "model_type" in refusal("x", {**LLAMA, "model_type": model_type}, "c.json", "auto")


class OwnFamily(LlamaFamily):
    name = "own"
    model_types = ("own",)


class BetterLlama(LlamaFamily):
    decoder_block = "BetterLayer"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two plugins: a new family, and one that replaces a built-in."""
    points = [
        EntryPoint(name=name, value=f"{__name__}:{cls.__name__}", group=registry.GROUP)
        for name, cls in (("own", OwnFamily), ("llama", BetterLlama))
    ]
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this_module())
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)


def _this_module() -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(OwnFamily=OwnFamily, BetterLlama=BetterLlama)


@pytest.mark.usefixtures("installed")
def test_a_plugin_adds_a_family_and_replaces_one_only_when_scanned() -> None:
    assert lookup_model("x", {**LLAMA, "model_type": "own"}, "c.json", "auto")[0].family == "own"
    assert lookup_model("x", LLAMA, "c.json", "auto")[0].decoder_block == "LlamaDecoderLayer"
    assert lookup_model("x", LLAMA, "c.json", "auto", scan_plugins=True)[0].decoder_block == "BetterLayer"


def test_a_broken_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint(name="broken", value="no.such.module:Family", group=registry.GROUP)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point])
    assert "'broken'" in refusal("x", {**LLAMA, "model_type": "else"}, "c.json", "auto")


def test_a_lookup_imports_nothing_heavy_and_scans_no_entry_points() -> None:
    code = (
        "import sys; from axoc.facts.models import lookup_model; "
        "lookup_model('meta-llama/Llama-3.1-8B', None, None, 'auto'); "
        "print([m for m in ('torch', 'transformers', 'importlib.metadata', 'yaml', 'axoc.facts.families.gpt2') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
