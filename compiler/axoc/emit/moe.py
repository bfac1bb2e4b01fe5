"""Which module of a mixture-of-experts model ZeRO-3 must gather whole."""

from __future__ import annotations

from typing import Final

from axoc.ir.facts import ModelFacts

MOE_BLOCKS: Final[dict[str, str]] = {
    "deepseek_v2": "DeepseekV2Moe",
    "deepseek_v3": "DeepseekV3MoE",
    "glm4_moe": "Glm4MoeMoE",
    "gpt_oss": "GptOssMLP",
    "granitemoe": "GraniteMoeMoE",
    "jamba": "JambaSparseMoeBlock",
    "minimax": "MiniMaxSparseMoeBlock",
    "mixtral": "MixtralSparseMoeBlock",
    "olmoe": "OlmoeSparseMoeBlock",
    "phimoe": "PhimoeSparseMoeBlock",
    "qwen2_moe": "Qwen2MoeSparseMoeBlock",
    "qwen3_moe": "Qwen3MoeSparseMoeBlock",
    "qwen3_next": "Qwen3NextSparseMoeBlock",
}
"""Class of the expert layer by transformers' model_type, read from transformers 5.17.0 (models/*/modeling_*.py)."""


def leaf_module_class(model: ModelFacts) -> str | None:
    """None for dense models. The whole decoder block where the expert layer's class is not known: safe, if larger."""
    if model.moe is None:
        return None
    return MOE_BLOCKS.get(model.model_type, model.decoder_block)
