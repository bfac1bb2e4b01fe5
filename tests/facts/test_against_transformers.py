"""Counts against the real classes: transformers on the meta device for every entry, PEFT on tiny models.

Also records what the facts rely on in transformers 5.17 and PEFT 0.21: experts and routers are no nn.Linear, and
PEFT adapts them all the same; GPT-2's Conv1D is adapted.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from axoc.errors import UserError
from axoc.facts.catalog import entry_files, load_entry
from axoc.facts.models import lookup_model
from axoc.facts.parameters import count_parameters, linear_shapes, lora_parameters
from axoc.ir.facts import ModelFacts
from axoc.search.rules.runtime import TENSOR_PARALLEL_FAMILIES

pytestmark = pytest.mark.slow

TINY = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "n_embd": 64,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 128,
    "num_kv_heads": 2,
    "original_max_position_embeddings": 128,
}
"""Replaces those fields that the published config has."""
EXAMPLES = {
    "llama": "meta-llama/Llama-3.1-8B",
    "mistral": "mistralai/Mistral-Nemo-Base-2407",
    "mixtral": "mistralai/Mixtral-8x7B-v0.1",
    "qwen2": "Qwen/Qwen2.5-7B",
    "qwen3": "Qwen/Qwen3-8B",
    "qwen3_moe": "Qwen/Qwen3-30B-A3B",
    "gemma2": "google/gemma-2-2b",
    "gemma3": "google/gemma-3-1b-it",
    "phi3": "microsoft/phi-4",
    "falcon": "tiiuae/falcon-7b",
    "falcon-40b": "tiiuae/falcon-40b",
    "gpt_neox": "EleutherAI/pythia-160m",
    "olmo2": "allenai/OLMo-2-1124-7B",
    "deepseek_v2": "deepseek-ai/DeepSeek-V2-Lite",
    "deepseek_v3": "deepseek-ai/DeepSeek-V3",
    "gpt2": "gpt2",
}
TOGGLES: dict[str, list[dict[str, Any]]] = {
    "llama": [{"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}],
    "qwen3": [{"attention_bias": True}],
    "qwen3_moe": [{"attention_bias": True, "mlp_only_layers": [0]}, {"decoder_sparse_step": 2}],
    "gemma2": [{"attention_bias": True, "tie_word_embeddings": False}],
    "falcon": [{"bias": True}, {"multi_query": False}, {"parallel_attn": False}],
    "gpt_neox": [{"attention_bias": False}],
    "olmo2": [{"attention_bias": True}],
    "deepseek_v2": [{"attention_bias": True, "mlp_bias": True}, {"q_lora_rank": 20}, {"n_shared_experts": 1}],
    "deepseek_v3": [{"attention_bias": True}, {"q_lora_rank": None}],
    "gpt2": [{"n_inner": 100}],
}


def build(config: dict[str, Any]) -> Any:
    """The model that AutoModelForCausalLM makes, on the meta device; of gemma3 the text decoder."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    parsed = CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    if config["model_type"] == "gemma3":
        parsed = parsed.text_config
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(parsed)


def linear_modules(model: Any) -> dict[str, Any]:
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return {n: m for n, m in model.named_modules() if isinstance(m, (Linear, Conv1D)) and m is not head}


def tiny(model_id: str, **more: Any) -> dict[str, Any]:
    entry = load_entry(next(f for f in entry_files() if _has(f, model_id)))
    config = {k: TINY.get(k, v) if v is not None else v for k, v in entry.config.items()}
    return {**config, **more, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _has(file: str, model_id: str) -> bool:
    entry = load_entry(file)
    return model_id in (entry.id, *entry.aliases)


def facts_of(config: dict[str, Any]) -> ModelFacts:
    return lookup_model("tiny", config, "config.json", "auto")[0]


@pytest.mark.parametrize("file", entry_files())
def test_every_entry_counts_as_transformers_builds_it(file: str) -> None:
    entry = load_entry(file)
    facts = lookup_model(entry.id, None, None, "auto")[0]
    model = build(entry.config)
    assert count_parameters(facts).total == sum(p.numel() for p in model.parameters())
    linear = sum(m.weight.numel() for m in linear_modules(model).values())
    assert sum(s.weights * s.copies for s in linear_shapes(facts)) == linear
    assert facts.decoder_block in {type(m).__name__ for m in model.modules()}
    kinds = getattr(model.config, "layer_types", None)
    if kinds and facts.family in ("gemma2", "gemma3", "qwen2", "qwen3"):
        assert facts.sliding_window_layers == kinds.count("sliding_attention")


@pytest.mark.parametrize(
    ("name", "toggle"), [(n, t) for n in EXAMPLES for t in [{}, *TOGGLES.get(n, [])]], ids=lambda v: str(v)
)
def test_every_switch_of_a_family_counts(name: str, toggle: dict[str, Any]) -> None:
    config = tiny(EXAMPLES[name], **toggle)
    model, facts = build(config), facts_of(config)
    assert count_parameters(facts).total == sum(p.numel() for p in model.parameters())
    biases = sum(m.bias.numel() for m in linear_modules(model).values() if m.bias is not None)
    assert count_parameters(facts).biases == biases


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_config_that_transformers_saved_says_the_same(name: str) -> None:
    """As every trained model's is: some fields have other names there than in what was published."""
    from transformers import CONFIG_MAPPING

    config = tiny(EXAMPLES[name])
    saved = CONFIG_MAPPING[config["model_type"]].from_dict(dict(config)).to_dict()
    assert count_parameters(facts_of(saved)) == count_parameters(facts_of(config))


@pytest.mark.parametrize("name", EXAMPLES)
def test_linear_layers_have_the_names_and_shapes_of_the_real_ones(name: str) -> None:
    config = tiny(EXAMPLES[name])
    found: dict[str, int] = {}
    for path, module in linear_modules(build(config)).items():
        inside = path.split(".", 3)[3]  # without model.layers.0 or transformer.h.0
        found[inside] = found.get(inside, 0) + module.weight.numel()
    assert {s.path: s.weights * s.copies for s in linear_shapes(facts_of(config))} == found


MOE = ("mixtral", "qwen3_moe", "deepseek_v2", "deepseek_v3")
EXPERT_TARGETS = {
    "mixtral": [("w1", "w2", "w3"), ("o_proj", "gate")],
    **{name: [("gate_proj", "up_proj"), ("down_proj", "o_proj"), ("gate",)] for name in MOE[1:]},
}


def peft_count(config: dict[str, Any], rank: int, targets: str | tuple[str, ...], use_dora: bool) -> int:
    from peft import LoraConfig, get_peft_model

    wanted = targets if isinstance(targets, str) else list(targets)
    lora = LoraConfig(r=rank, target_modules=wanted, use_dora=use_dora, task_type="CAUSAL_LM")
    return int(get_peft_model(build(config), lora).get_nb_trainable_parameters()[0])


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("name", EXAMPLES)
def test_lora_counts_as_peft_does(name: str, use_dora: bool) -> None:
    config = tiny(EXAMPLES[name])
    facts = facts_of(config)
    first = (linear_shapes(facts)[0].name,)
    targets = [first] if use_dora and name in MOE else [first, "all-linear", *EXPERT_TARGETS.get(name, [])]
    for wanted in targets:
        assert lora_parameters(facts, 5, wanted, use_dora) == peft_count(config, 5, wanted, use_dora), wanted


@pytest.mark.parametrize("name", MOE)
def test_peft_refuses_dora_on_experts(name: str) -> None:
    with pytest.raises(ValueError, match="use_dora"):
        peft_count(tiny(EXAMPLES[name]), 5, "all-linear", True)
    with pytest.raises(UserError, match="DoRA"):
        lora_parameters(facts_of(tiny(EXAMPLES[name])), 5, "all-linear", True)


@pytest.mark.parametrize(
    ("name", "toggle"),
    [
        ("qwen3_moe", {"mlp_only_layers": [0]}),
        ("deepseek_v2", {"first_k_dense_replace": 0}),
        ("deepseek_v3", {"q_lora_rank": None}),
    ],
)
def test_lora_counts_with_dense_and_moe_layers_mixed(name: str, toggle: dict[str, Any]) -> None:
    config = tiny(EXAMPLES[name], **toggle)
    assert lora_parameters(facts_of(config), 5, "all-linear") == peft_count(config, 5, "all-linear", False)


def test_fused_experts_and_routers_are_no_linear_layers() -> None:
    for name in MOE:
        paths = linear_modules(build(tiny(EXAMPLES[name])))
        assert not [p for p in paths if ".experts" in p or p.endswith(".gate")]


@pytest.mark.parametrize("family", [*TENSOR_PARALLEL_FAMILIES, "phi3", "mixtral"])
def test_layers_are_split_in_the_families_that_the_rule_lets_pass_alone(family: str) -> None:
    """By columns or rows, all of a block's: what the runtime trains (strategies/tensor.py)."""
    from axoc_runtime.strategies.tensor import STYLES
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config: Any = CONFIG_MAPPING["gemma3_text" if family == "gemma3" else family]
    styles = set(config.base_model_tp_plan.values())
    plain = styles <= set(STYLES) and {"colwise", "rowwise"} <= styles
    assert plain == (family in TENSOR_PARALLEL_FAMILIES)


def test_the_family_that_the_guide_writes_lists_what_transformers_builds() -> None:
    import torch
    import transformers

    guide = (Path(__file__).resolve().parents[2] / "docs/plugins.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(from axoc\.facts\.families\.base .*?)```", guide, re.DOTALL)
    assert block is not None
    scope: dict[str, Any] = {}
    exec(block[1], scope)
    config = transformers.Starcoder2Config(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=256, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    family = scope["Starcoder2"]()
    facts = family.parse(config.to_dict(), model_id="m", file=None)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    built = {
        (name.removeprefix("model.layers.0."), m.in_features, m.out_features, m.bias is not None)
        for name, m in model.named_modules()
        if isinstance(m, torch.nn.Linear) and name.startswith("model.layers.0.")
    }
    assert {(s.path, s.in_features, s.out_features, s.bias) for s in family.linears(facts)} == built
    assert sum(s.copies for s in family.linears(facts)) == 2 * len(built)
