"""Kind of attention, and what its cache of keys and values takes, from a model's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CACHE_BYTES = 2
"""Of one number: servers keep the cache in 16 bits."""


@dataclass(frozen=True, kw_only=True)
class Attention:
    kind: str
    """MHA, GQA, MQA or MLA."""
    heads: int
    kv_heads: int
    cache_bytes_per_token: int
    """Of the whole model, in 16 bits."""


def attention_of(config: Any) -> Attention:
    """``config``: transformers' configuration of the text model."""
    heads, layers = int(config.num_attention_heads), int(config.num_hidden_layers)
    latent = getattr(config, "kv_lora_rank", None)
    if latent:
        width = int(latent) + int(config.qk_rope_head_dim)
        return Attention(kind="MLA", heads=heads, kv_heads=heads, cache_bytes_per_token=CACHE_BYTES * layers * width)
    kv_heads = _kv_heads(config, heads)
    size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    kind = "MHA" if kv_heads == heads else "MQA" if kv_heads == 1 else "GQA"
    cache = 2 * CACHE_BYTES * layers * kv_heads * size
    return Attention(kind=kind, heads=heads, kv_heads=kv_heads, cache_bytes_per_token=cache)


def _kv_heads(config: Any, heads: int) -> int:
    """Falcon's older models say it by a flag, and their num_kv_heads then means nothing."""
    if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False):
        return 1
    return int(getattr(config, "num_key_value_heads", None) or getattr(config, "num_kv_heads", None) or heads)
