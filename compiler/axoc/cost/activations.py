"""Bytes of saved activations, by term. Counted operation by operation from transformers 5.17's modelling code.

T is tokens of one micro-step on one rank. A block's terms are bytes a token; the stream is the residual stream.
Sources: transformers/models/llama/modeling_llama.py (RMSNorm in fp32, SDPA with grouped queries), torch autograd's
saved tensors, peft/tuners/lora/layer.py (the adapter's own cast of its input), liger_kernel's RMSNorm and SwiGLU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from axoc.cost.columns import Columns, Floats
from axoc.cost.scenario import Scenario


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """Bytes of one element, by row."""

    stream: Floats
    """Residual stream: the embedding's dtype."""
    compute: float
    """Inside linear layers and attention."""
    casts: Floats
    """1.0 where autocast copies each linear layer's input and weight, 0.0 where dtypes agree."""
    output: Floats
    """What a linear layer hands on: bitsandbytes casts its result back to the input's dtype, the stream's."""
    layernorm: Floats
    """What a LayerNorm keeps of its input: autocast runs it in fp32 (torch.amp's list of such operations)."""


def numerics(scenario: Scenario, c: Columns) -> Numerics:
    """DeepSpeed and FSDP2 compute in the low-precision module itself: there autocast has nothing left to copy."""
    compute = float(scenario.compute_bytes)
    plain = 4.0 if scenario.quantized else float(scenario.weight_bytes)
    low = c.deepspeed | c.uses("fsdp")
    stream = np.where(low & (not scenario.quantized), compute, plain)
    autocast = ~low & (scenario.mixed_precision != "no")
    return Numerics(
        stream=stream,
        compute=compute,
        casts=np.where(stream > compute, 1.0, 0.0),
        output=stream if scenario.quantized else np.full(len(c), compute),
        layernorm=np.where(autocast, 4.0, stream),
    )


def block_token_bytes(scenario: Scenario, c: Columns, n: Numerics) -> Floats:
    """Saved for the backward by one decoder block, bytes a token."""
    return cast(Floats, _norms(scenario, n) + _attention(scenario, c, n) + _mlp(scenario, c, n))


def _norms(scenario: Scenario, n: Numerics) -> Floats:
    """Each norm keeps its fp32 input (the stream itself where that is fp32) and, if trained, its normalized output."""
    model = scenario.model
    count, h = model.norms_per_layer, model.hidden_size
    if model.norm.startswith("layernorm"):
        return count * h * n.layernorm
    if scenario.kernels == "liger":
        return count * h * n.stream
    normalized = n.stream * (1.0 if scenario.is_full else 0.0)
    return count * h * (4.0 + normalized)


def _attention(scenario: Scenario, c: Columns, n: Numerics) -> Floats:
    """Query, key, value and output of the attention kernel, its log-sum-exp, and the inputs of its projections."""
    model = scenario.model
    mla = model.mla
    key_width = model.num_kv_heads * model.head_dim
    query_width = model.num_heads * model.head_dim
    if mla is not None:
        key_width = query_width = model.num_heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
    kept = n.compute * (2 * query_width + 2 * key_width) + 4.0 * model.num_heads
    if scenario.sizes.fused_qkv:  # the value is a view of the fused product, the rotated query and key are new
        kept += n.compute * (query_width + key_width)
    if scenario.attention == "eager":
        kept += _eager_token_bytes(scenario, n, query_width - key_width)
    kept += _head_norms(scenario, n, query_width + key_width)
    inputs = model.hidden_size * n.compute * np.where(n.casts > 0, 3.0, 1.0) if scenario.is_full else 0.0
    return cast(Floats, kept / c.tensor_parallel + inputs + _adapter_inputs(scenario, n))


def _eager_token_bytes(scenario: Scenario, n: Numerics, repeated: int) -> float:
    """Softmax in fp32 and its cast, tanh where scores are capped; keys and values repeated for every query head."""
    model = scenario.model
    capped = n.compute if model.attention_softcapping is not None else 0.0
    scores = model.num_heads * scenario.seq_length * (n.compute + 4.0 + capped)
    return scores + 2 * n.compute * repeated


def _head_norms(scenario: Scenario, n: Numerics, width: int) -> float:
    """RMSNorm of query and key: its fp32 input and, if trained, its normalized output; with Liger the input alone."""
    if scenario.model.qk_norm == "none":
        return 0.0
    if scenario.kernels == "liger":
        return width * n.compute
    return width * (4.0 + (n.compute if scenario.is_full else 0.0))


def _adapter_inputs(scenario: Scenario, n: Numerics) -> float:
    """Every adapted layer keeps its own cast copy of its input, and the low-rank product."""
    if scenario.adapter is None:
        return 0.0
    dropout = 1.0 if scenario.adapter.dropout > 0 else 0.0  # a mask of one byte and the scaled input
    width = scenario.sizes.lora_input_width
    return width * (n.compute + dropout * 1.0) + scenario.sizes.lora_targets * scenario.adapter.rank * n.compute


def _mlp(scenario: Scenario, c: Columns, n: Numerics) -> Floats:
    """Gate, activation, up and product (three with Liger, which recomputes the activation), and the input."""
    model = scenario.model
    if model.moe is not None:
        moe = model.moe
        width = moe.experts_per_token * moe.expert_intermediate_size + moe.shared_intermediate_size
        routed = moe.experts_per_token * model.hidden_size * 2 * n.compute  # gathered inputs and weighted outputs
        router = 4.0 * moe.num_experts
    else:
        width, routed, router = model.intermediate_size, 0.0, 0.0
    tensors = (3 if scenario.kernels == "liger" else 4) if model.gated_mlp else 2
    if not scenario.is_full and _down_is_adapted(scenario):
        tensors -= 1  # its input is counted with the adapter's
    inputs = model.hidden_size * n.compute * np.where(n.casts > 0, 2.0 if model.gated_mlp else 1.0, 1.0)
    full_inputs = inputs if scenario.is_full else 0.0
    return cast(Floats, tensors * n.output * width / c.tensor_parallel + routed + router + full_inputs)


def _down_is_adapted(scenario: Scenario) -> bool:
    return scenario.adapter is not None and scenario.model.moe is None


def block_working_bytes(scenario: Scenario, c: Columns, n: Numerics) -> Floats:
    """Bytes a token alive only inside one block's backward: gradients of the MLP's widest tensors and the stream's."""
    model = scenario.model
    width = model.intermediate_size
    if model.moe is not None:
        width = model.moe.experts_per_token * model.moe.expert_intermediate_size
    tensors = 3 if model.gated_mlp else 2
    tensors += 2 if scenario.sizes.fused_gate_up else 0  # the gradients of gate and up, put together
    mlp = tensors * n.output * width / c.tensor_parallel
    return cast(Floats, mlp + model.hidden_size * (n.stream + 4.0))


def tail_token_bytes(scenario: Scenario, n: Numerics) -> Floats:
    """Final norm and the head's input, bytes a token."""
    h = scenario.model.hidden_size
    normalized = n.stream if scenario.is_full else 0.0
    return cast(Floats, h * (4.0 + normalized + n.compute))
