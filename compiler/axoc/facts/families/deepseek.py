"""DeepSeek V2 and V3 (and R1): latent attention, a few dense layers, then routed and shared experts."""

from __future__ import annotations

from typing import Any

from axoc.facts.families.base import ModelFamily, Shape, read_shape
from axoc.facts.families.linears import LinearShape, gated_projections, separate_mlp
from axoc.facts.families.reader import ConfigReader
from axoc.ir.facts import MlaFacts, ModelFacts, MoeFacts


class DeepseekV2Family(ModelFamily):
    name = "deepseek_v2"
    model_types = ("deepseek_v2",)
    decoder_block = "DeepseekV2DecoderLayer"
    expert_projections = ("gate_proj", "up_proj", "down_proj")
    default_experts = 64
    default_shared = 2
    default_expert_width = 1407
    default_dense_layers = 0

    def read(self, reader: ConfigReader) -> dict[str, Any]:
        shape = read_shape(reader, max_positions=4096)
        mla = _read_mla(reader)
        bias = reader.flag("attention_bias", False)
        return shape.as_dict() | {
            "head_dim": mla.qk_nope_head_dim + mla.qk_rope_head_dim,
            "num_kv_heads": shape.num_heads,
            "tie_word_embeddings": reader.flag("tie_word_embeddings", False),
            "activation": reader.text("hidden_act", "silu"),
            "attention_bias": bias,
            "attention_output_bias": bias,
            "mlp_bias": reader.flag("mlp_bias", False),
            "mla": mla,
            "moe": self._read_moe(reader, shape),
        }

    def linears(self, model: ModelFacts) -> tuple[LinearShape, ...]:
        return _latent_attention(model) + separate_mlp(model) + _shared_experts(model)

    def attention_norms(self, model: ModelFacts) -> int:
        """q_a_layernorm (where queries are compressed) and kv_a_layernorm."""
        assert model.mla is not None
        return (model.mla.q_lora_rank or 0) + model.mla.kv_lora_rank

    def _read_moe(self, reader: ConfigReader, shape: Shape) -> MoeFacts:
        width = reader.count("moe_intermediate_size", self.default_expert_width)
        shared = reader.count("n_shared_experts", self.default_shared, minimum=0)
        dense = reader.count("first_k_dense_replace", self.default_dense_layers, minimum=0)
        return MoeFacts(
            num_experts=reader.count("n_routed_experts", self.default_experts),
            experts_per_token=reader.count("num_experts_per_tok"),
            expert_intermediate_size=width,
            num_shared_experts=shared,
            shared_intermediate_size=shared * width,
            num_dense_layers=min(dense, shape.num_layers),
        )


class DeepseekV3Family(DeepseekV2Family):
    name = "deepseek_v3"
    model_types = ("deepseek_v3",)
    decoder_block = "DeepseekV3DecoderLayer"
    default_experts = 256
    default_shared = 1
    default_expert_width = 2048
    default_dense_layers = 3

    def read(self, reader: ConfigReader) -> dict[str, Any]:
        return super().read(reader) | {"mlp_bias": False}


def _read_mla(reader: ConfigReader) -> MlaFacts:
    absent = "q_lora_rank" not in reader.config
    return MlaFacts(
        q_lora_rank=1536 if absent else reader.optional_count("q_lora_rank"),
        kv_lora_rank=reader.count("kv_lora_rank", 512),
        qk_nope_head_dim=reader.count("qk_nope_head_dim", 128),
        qk_rope_head_dim=reader.count("qk_rope_head_dim", 64),
        v_head_dim=reader.count("v_head_dim", 128),
    )


def _latent_attention(model: ModelFacts) -> tuple[LinearShape, ...]:
    mla = model.mla
    assert mla is not None
    hidden, heads, rank = model.hidden_size, model.num_heads, mla.q_lora_rank
    query = heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
    bias = model.attention_bias
    if rank is None:
        queries = [_attention(model, "q_proj", hidden, query)]
    else:
        queries = [_attention(model, "q_a_proj", hidden, rank, bias), _attention(model, "q_b_proj", rank, query)]
    values = heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    return (
        *queries,
        _attention(model, "kv_a_proj_with_mqa", hidden, mla.kv_lora_rank + mla.qk_rope_head_dim, bias),
        _attention(model, "kv_b_proj", mla.kv_lora_rank, values),
        _attention(model, "o_proj", heads * mla.v_head_dim, hidden, bias),
    )


def _attention(model: ModelFacts, name: str, in_features: int, out_features: int, bias: bool = False) -> LinearShape:
    return LinearShape(
        path=f"self_attn.{name}",
        in_features=in_features,
        out_features=out_features,
        part="attention",
        bias=bias,
        layers=model.num_layers,
    )


def _shared_experts(model: ModelFacts) -> tuple[LinearShape, ...]:
    moe = model.moe
    assert moe is not None
    layers = model.num_layers - moe.num_dense_layers
    if not moe.num_shared_experts or not layers:
        return ()
    return gated_projections(model, "mlp.shared_experts", moe.shared_intermediate_size, layers, "shared_expert")
