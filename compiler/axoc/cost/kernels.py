"""Seconds of one micro-step's kernels on one rank: a roofline over matrix products, attention and the rest.

Every term is the larger of arithmetic over a sustained rate and bytes over a sustained bandwidth. The sustained shares
are datasheet-relative and come from public measurements of Hopper and Ampere, not from the rows that judge:
large bf16 products reach 0.70 to 0.80 of the dense rate, copies 0.85 to 0.92 of the bandwidth.
"""

from __future__ import annotations

from typing import Final, cast

import numpy as np

from axoc.cost import flops
from axoc.cost.columns import Columns, Floats
from axoc.cost.scenario import Scenario

MATMUL_SHARE: Final = 0.72
BANDWIDTH_SHARE: Final = 0.85
ATTENTION_FORWARD_SHARE: Final = {64: 0.21, 128: 0.30, 256: 0.28}
"""torch's flash backend on Hopper, by head size, of the dense bf16 rate."""
ATTENTION_BACKWARD_FACTOR: Final = 2.5 * 1.2
"""Five products instead of two, and less overlap."""
LAUNCH_SECONDS: Final = 36e-6
"""One eager operation through autograd and the Trainer on a cloud host."""
CPU_LAUNCH_SECONDS: Final = 8e-6
FORWARD_OPERATIONS: Final = 52
"""Kernels of a Llama block's forward in eager mode: two norms of 7, four attention and three MLP products with their
casts, rotary embedding 12, attention, activation, residuals."""
LIGER_OPERATIONS: Final = 24


def dense_rate(scenario: Scenario) -> float:
    """Datasheet FLOP/s for the dtype the products run in."""
    rates = scenario.cluster.accelerator.dense_flops_per_second
    if scenario.mixed_precision == "fp8" and "fp8" in rates:
        return rates["fp8"]
    dtype = {"bf16": "bfloat16", "fp16": "float16"}.get(scenario.mixed_precision, scenario.dtype)
    return rates.get(dtype) or rates["float32"]


def bandwidth(scenario: Scenario) -> float:
    return scenario.cluster.accelerator.memory_bandwidth_bytes_per_second * BANDWIDTH_SHARE


def matmul_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Linear layers and head: forward, recomputed forward, and backward by input and (where trained) by weight."""
    rate = dense_rate(scenario) * (0.6 if scenario.on_cpu else MATMUL_SHARE)
    blocks, head = flops.block_forward(scenario, c), flops.head_forward(scenario, c)
    again = flops.recomputed_share(scenario, c)
    backward = 2.0 if scenario.is_full else 1.0
    work = blocks * (1 + again + backward) + head * (1 + backward)
    weight_reads = scenario.sizes.blocks_linear * float(scenario.compute_bytes) * (2 + again) / c.tensor_parallel
    adapter = _adapter_seconds(scenario, c)
    return cast(Floats, np.maximum(work / rate, weight_reads / bandwidth(scenario)) + adapter)


def _adapter_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Thin products move their inputs and outputs: forward, recomputed, and twice in the backward."""
    if scenario.adapter is None:
        return np.zeros(len(c))
    into = 2.0 * scenario.sizes.lora_input_width * (scenario.compute_bytes + 4.0)  # to fp32 and back, read and written
    out = scenario.sizes.lora_output_width * scenario.compute_bytes * 5.0  # scaled, then added to the base's output
    moved = flops.tokens(scenario, c) * scenario.model.num_layers * (into + out)
    return cast(Floats, moved * (3 + flops.recomputed_share(scenario, c)) / bandwidth(scenario))


def attention_seconds(scenario: Scenario, c: Columns) -> Floats:
    head_dim = min(ATTENTION_FORWARD_SHARE, key=lambda d: abs(d - scenario.model.head_dim))
    share = 0.3 if scenario.on_cpu else ATTENTION_FORWARD_SHARE[head_dim]
    forward = flops.attention_forward(scenario, c) / (dense_rate(scenario) * share)
    return cast(Floats, forward * (1 + flops.recomputed_share(scenario, c) + ATTENTION_BACKWARD_FACTOR))


def elementwise_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Norms, rotary embedding, activation, residuals and casts: bytes read and written, forward and twice back."""
    model = scenario.model
    h, stream = model.hidden_size, float(4 if scenario.weight_bytes == 4 else 2)
    norm = h * (3 * stream + 20.0)  # to fp32, square, mean, scale, back, weight: each pass reads and writes
    casts = (5 * h * (stream + 2.0)) if stream > scenario.compute_bytes else 0.0
    rotary = 10.0 * (model.num_heads + model.num_kv_heads) * model.head_dim * scenario.compute_bytes
    width = (
        model.intermediate_size
        if model.moe is None
        else (model.moe.experts_per_token * model.moe.expert_intermediate_size + model.moe.shared_intermediate_size)
    )
    activation = width * scenario.compute_bytes * 5.0
    if scenario.kernels == "liger":
        norm, rotary, activation = h * 2 * stream, rotary * 0.3, width * scenario.compute_bytes * 3.0
    per_token = model.norms_per_layer * norm + casts + rotary + activation + 6 * h * stream
    moved = flops.tokens(scenario, c) * model.num_layers * per_token
    return cast(Floats, moved * (3 + flops.recomputed_share(scenario, c)) / bandwidth(scenario))


def loss_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Passes over the logits: cast, log-softmax, accelerate's copy, two gradients, cast back; or Liger's three."""
    per_logit = 12.0 if scenario.fused_loss else 46.0
    return cast(Floats, flops.tokens(scenario, c) * scenario.model.vocab_size * per_logit / bandwidth(scenario))


def weight_cast_seconds(scenario: Scenario, c: Columns) -> Floats:
    """fp32 training under autocast casts weights down each pass and gradients up; accumulation adds into them."""
    trained = scenario.trainable / (c.gradient_shards * c.tensor_parallel)
    adding = np.where(c.accumulation > 1, trained * 3.0 * scenario.trainable_bytes, 0.0)
    casts: Floats | float = 0.0
    if scenario.is_full and scenario.weight_bytes > scenario.compute_bytes:
        casts = scenario.sizes.blocks_linear * 6.0 * (2 + flops.recomputed_share(scenario, c)) / c.tensor_parallel
    return cast(Floats, (adding + casts) / bandwidth(scenario))


def dequantization_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Every pass over a quantized weight reads it and writes it in the compute dtype."""
    if not scenario.quantized:
        return np.zeros(len(c))
    moved = scenario.sizes.blocks_quantizable * (0.5 + 2 * scenario.compute_bytes)
    return cast(Floats, moved * (2 + flops.recomputed_share(scenario, c)) / bandwidth(scenario))


def launch_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Host time to launch a micro-step's kernels: a floor for small batches."""
    per_block = LIGER_OPERATIONS if scenario.kernels == "liger" else FORWARD_OPERATIONS
    if scenario.adapter is not None:
        per_block += 6 * scenario.sizes.lora_targets
    if scenario.model.moe is not None:
        per_block += 4 * scenario.model.moe.num_experts
    passes = 2.7 + flops.recomputed_share(scenario, c)
    each = CPU_LAUNCH_SECONDS if scenario.on_cpu else LAUNCH_SECONDS
    share = 0.25 if scenario.compile else 1.0
    return cast(Floats, scenario.model.num_layers * per_block * passes * each * share)


def optimizer_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Once a step: read weight, gradient and states, write weight and states; the norm reads gradients twice more."""
    local = scenario.trainable / (c.optimizer_shards * c.tensor_parallel)
    w = float(scenario.trainable_bytes)
    moved = local * (2 * w + 2 * scenario.optimizer_bytes + 4 * w)
    moved = np.where(c.deepspeed, local * (2 * 12.0 + 3 * 4.0), moved)
    on_device = moved / bandwidth(scenario)
    # DeepSpeedCPUAdam is bound by host memory: about 28 bytes a parameter at 100 GB/s a socket pair
    on_host = local * 28.0 / (100e9 / np.minimum(c.world, scenario.cluster.accelerators_per_node))
    return cast(Floats, np.where(c.offloads_optimizer, on_host, on_device))
