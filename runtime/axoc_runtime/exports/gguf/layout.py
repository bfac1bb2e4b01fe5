"""What llama.cpp's architectures want to know, and how their tensors differ from transformers'.

Sources: llama.cpp's src/llama-model.cpp (which keys and tensors an architecture loads, and how it rotates), and the gguf
package's constants and tensor names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Layout:
    arch: str
    """llama.cpp's name."""
    rotates_pairs: bool = False
    """Rotary pairs are neighbours there, halves in transformers: query and key rows change places."""
    norm_offset: bool = False
    """The model multiplies by 1 + weight (Gemma); llama.cpp by what is stored."""


LAYOUTS: Final[Mapping[str, Layout]] = {
    "LlamaForCausalLM": Layout(arch="llama", rotates_pairs=True),
    "MistralForCausalLM": Layout(arch="llama", rotates_pairs=True),
    "MixtralForCausalLM": Layout(arch="llama", rotates_pairs=True),
    "Qwen2ForCausalLM": Layout(arch="qwen2"),
    "Qwen3ForCausalLM": Layout(arch="qwen3"),
    "Qwen3MoeForCausalLM": Layout(arch="qwen3moe"),
    "Gemma2ForCausalLM": Layout(arch="gemma2", norm_offset=True),
    "Gemma3ForCausalLM": Layout(arch="gemma3", norm_offset=True),
    "Phi3ForCausalLM": Layout(arch="phi3"),
    "Olmo2ForCausalLM": Layout(arch="olmo2"),
}
"""By transformers' class. Each is written, loaded and measured in tests/exports."""


def head_size(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def refusal(config: Any, architecture: str) -> str | None:
    """Why llama.cpp could not compute this model, as far as its configuration tells."""
    if architecture not in LAYOUTS:
        return f"no GGUF layout is known for {architecture}; there are {', '.join(sorted(LAYOUTS))}"
    kind = rope(config).get("rope_type", "default")
    if kind not in ("default", "linear", "llama3", "yarn"):
        return f"GGUF export does not know rotary scaling {kind!r}"
    window = getattr(config, "sliding_window", None)
    if LAYOUTS[architecture].arch == "llama" and window is not None and window < config.max_position_embeddings:
        return f"llama.cpp computes {architecture} without its sliding window of {window:,}"
    if architecture == "Qwen3MoeForCausalLM" and (refused := _refused_experts(config)):
        return refused
    if architecture in ("Gemma2ForCausalLM", "Gemma3ForCausalLM") and config.query_pre_attn_scalar != head_size(config):
        return "llama.cpp takes Gemma's attention scale from the head size, and this model has another"
    return None


def _refused_experts(config: Any) -> str | None:
    if not config.norm_topk_prob:
        return "llama.cpp scales the chosen experts' weights to a sum of one, and this model does not (norm_topk_prob)"
    if config.mlp_only_layers or config.decoder_sparse_step != 1:
        return "llama.cpp wants experts in every layer, and some layers of this model have none"
    return None


def known_name(name: str) -> str:
    """A tensor's name as the gguf package knows it: Mixtral's own experts have their model's first names there."""
    if ".block_sparse_moe.experts.w" not in name:
        return name
    return name.removeprefix("model.").replace("block_sparse_moe", "feed_forward")


def rope(config: Any) -> dict[str, Any]:
    """Rotary parameters; those of full attention where layers differ."""
    found = dict(getattr(config, "rope_parameters", None) or {})
    return dict(found["full_attention"]) if "full_attention" in found else found


def write_parameters(writer: Any, config: Any, layout: Layout) -> None:
    """The architecture's numbers, under llama.cpp's keys."""
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _write_rope(writer, config)
    _write_attention(writer, config, layout)
    _write_experts(writer, config)


def _write_rope(writer: Any, config: Any) -> None:
    import gguf

    found = rope(config)
    rotated = int(head_size(config) * found.get("partial_rotary_factor", 1.0))
    writer.add_rope_dimension_count(rotated)
    writer.add_rope_freq_base(float(found.get("rope_theta", 10000.0)))
    kind = found.get("rope_type", "default")
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(found["factor"]))
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(found["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(found["original_max_position_embeddings"]))


def _write_attention(writer: Any, config: Any, layout: Layout) -> None:
    if layout.arch in ("gemma2", "gemma3", "phi3") and getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    if layout.arch == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if layout.arch == "gemma3":
        local = dict(config.rope_parameters).get("sliding_attention", {})
        writer.add_rope_freq_base_swa(float(local.get("rope_theta", 10000.0)))


def _write_experts(writer: Any, config: Any) -> None:
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(
            getattr(config, "moe_intermediate_size", None) or config.intermediate_size
        )


def extra_tensors(config: Any) -> dict[str, Array]:
    """Llama 3's scaling of long wavelengths, as the divisors that llama.cpp multiplies them by."""
    found = rope(config)
    if found.get("rope_type") != "llama3":
        return {}
    size = head_size(config)
    frequencies = found["rope_theta"] ** -(np.arange(0, size, 2, dtype=np.float64) / size)
    wavelengths = 2 * math.pi / frequencies
    low, high = (found["original_max_position_embeddings"] / found[f"{end}_freq_factor"] for end in ("low", "high"))
    span = found["high_freq_factor"] - found["low_freq_factor"]
    smooth = (found["original_max_position_embeddings"] / wavelengths - found["low_freq_factor"]) / span
    between = 1 / ((1 - smooth) / found["factor"] + smooth)
    factors = np.where(wavelengths < high, 1.0, np.where(wavelengths > low, found["factor"], between))
    return {"rope_freqs.weight": factors.astype(np.float32)}


def changed(name: str, tensor: Array, config: Any, layout: Layout) -> Array:
    """A tensor as llama.cpp wants it. ``name`` is transformers'."""
    if layout.rotates_pairs and ".self_attn.q_proj." in name:
        return _paired(tensor, config.num_attention_heads)
    if layout.rotates_pairs and ".self_attn.k_proj." in name:
        return _paired(tensor, config.num_key_value_heads)
    if layout.norm_offset and name.endswith("norm.weight"):
        return tensor + np.ones((), tensor.dtype)
    return tensor


def _paired(tensor: Array, heads: int) -> Array:
    """Rows of each head from [first half, second half] to neighbouring pairs."""
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)
