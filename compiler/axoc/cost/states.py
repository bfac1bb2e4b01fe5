"""Persistent bytes of one rank: weights, gradients, optimizer states, masters, buckets that stay."""

from __future__ import annotations

from typing import Final, cast

import numpy as np

from axoc.cost import split, uneven
from axoc.cost.buckets import reduce_bucket_elements
from axoc.cost.columns import Bools, Columns, Floats
from axoc.cost.partition import largest_elements
from axoc.cost.scenario import OPTIMIZER_STATE_BYTES, Scenario

NF4_BYTES: Final = 0.5
NF4_BLOCK: Final = 64
NF4_SCALES_BLOCK: Final = 256


def quantized_bytes_per_parameter(scenario: Scenario) -> float:
    """Bytes of one quantized weight with its scales (bitsandbytes: QLoRA, arXiv 2305.14314, section 3)."""
    if scenario.quantization == "int8":
        return 1.0
    if not scenario.double_quantization:
        return NF4_BYTES + 4 / NF4_BLOCK
    return NF4_BYTES + 1 / NF4_BLOCK + 4 / (NF4_BLOCK * NF4_SCALES_BLOCK)


def base_bytes(scenario: Scenario) -> tuple[float, float]:
    """Bytes of the base model on one rank if nothing were sharded: (in linear blocks, elsewhere).

    Under k-bit preparation PEFT upcasts what is not quantized (norms, embedding, head) to fp32.
    """
    sizes = scenario.sizes
    if scenario.quantized:
        packed = sizes.blocks_quantizable * quantized_bytes_per_parameter(scenario)
        return packed, 4.0 * (sizes.total - sizes.blocks_quantizable)
    rest = sizes.total - sizes.blocks_linear
    return float(scenario.weight_bytes * sizes.blocks_linear), float(scenario.weight_bytes * rest)


def saved_weight_bytes(scenario: Scenario) -> float:
    """Of one of them: PEFT copies the module as it is, and casts nothing but adapters (peft/utils/other.py,
    ModulesToSaveWrapper); k-bit preparation has raised it before."""
    return 4.0 if scenario.quantized else float(scenario.weight_bytes)


def trained_bytes(scenario: Scenario) -> float:
    """Of everything that is trained."""
    saved = scenario.sizes.saved
    adapters = scenario.trainable - saved
    return adapters * float(scenario.trainable_bytes) + saved * saved_weight_bytes(scenario)


def keeps_bf16_module(scenario: Scenario, c: Columns) -> Floats:
    """1.0 where DeepSpeed holds the module in bf16 and a float32 master of what is trained."""
    return cast(Floats, np.where(c.deepspeed & _low_module(scenario), 1.0, 0.0))


def _low_module(scenario: Scenario) -> bool:
    return scenario.mixed_precision in ("bf16", "fp16") or scenario.dtype != "float32"


def weights(scenario: Scenario, c: Columns) -> Floats:
    """Base weights and adapters resident on one rank's device."""
    linear, rest = base_bytes(scenario)
    low = keeps_bf16_module(scenario, c)
    shrink = np.where((low > 0) & (not scenario.quantized), 2.0 / scenario.weight_bytes, 1.0)
    base = (linear + rest) * shrink * split.share(scenario, c) / c.weight_shards * uneven.of_model(scenario, c)
    trained = np.where(low > 0, scenario.trainable * 2.0, trained_bytes(scenario))
    adapter = 0.0 if scenario.is_full else trained / c.weight_shards
    return cast(Floats, np.where(c.offloads_parameters, 0.0, base + adapter))


def reference(scenario: Scenario, c: Columns) -> Floats:
    """The frozen copy of the base: sharded as the policy is under FSDP2 and ZeRO-3, else whole on every rank
    (trl/models/utils.py, prepare_deepspeed: stage 0 but for 3). DeepSpeed casts it to its module's dtype. It is not
    offloaded with the policy's."""
    linear, rest = base_bytes(scenario)
    low = keeps_bf16_module(scenario, c)
    shrink = np.where(low > 0, 2.0 / scenario.weight_bytes, 1.0)
    return cast(Floats, (linear + rest) * shrink / c.weight_shards * uneven.of_model(scenario, c))


def gradients(scenario: Scenario, c: Columns) -> Floats:
    """Gradients resident once a backward is complete."""
    low = keeps_bf16_module(scenario, c) > 0
    whole = np.where(low, scenario.trainable * 2.0, trained_bytes(scenario))
    resident = whole / (_trainable_tensor_shards(scenario, c) * c.gradient_shards) * _uneven(scenario, c)
    offloaded = c.offloads_optimizer & c.uses("zero2", "zero3", "fsdp")
    return cast(Floats, np.where(offloaded, 0.0, resident))


def held_from_start(c: Columns) -> Bools:
    """ZeRO-3 makes its flat gradient partition before the first step and keeps it (runtime/zero/stage3.py)."""
    return c.uses("zero3")


def optimizer(scenario: Scenario, c: Columns) -> Floats:
    """Optimizer states and DeepSpeed's fp32 masters on the device."""
    low = keeps_bf16_module(scenario, c)
    saved = scenario.sizes.saved
    own = OPTIMIZER_STATE_BYTES[scenario.optimizer](saved_weight_bytes(scenario))
    plain = (scenario.trainable - saved) * scenario.optimizer_bytes + saved * own
    masters = scenario.trainable * (_states_in_fp32(scenario) + 4.0)
    total = np.where(low > 0, masters, plain) + embedding_states_bytes(scenario)
    resident = total / (_trainable_tensor_shards(scenario, c) * c.optimizer_shards) * _uneven(scenario, c)
    return cast(Floats, np.where(c.offloads_optimizer, 0.0, resident))


def masters(scenario: Scenario, c: Columns) -> Floats:
    """DeepSpeed's, in fp32, of a rank's share; they are there before the first step."""
    share = scenario.trainable * 4.0 / c.optimizer_shards
    return cast(Floats, np.where(c.deepspeed & ~c.offloads_optimizer, share, 0.0))


def embedding_states_bytes(scenario: Scenario) -> float:
    """With 8-bit AdamW the Trainer keeps embeddings' states in 32 bits (bitsandbytes' GlobalOptimManager override)."""
    if scenario.optimizer != "adamw_bnb_8bit" or not scenario.is_full:
        return 0.0
    return scenario.sizes.embedding * (8.0 - scenario.optimizer_bytes)


def buffers(scenario: Scenario, c: Columns) -> Floats:
    """Buckets that stay from the first step on. torch's DDP copies gradients into flat ones unless gradient_as_bucket_view
        is set, which the Trainer does not; ZeRO-3 makes its own with its optimizer (stage3.py, _setup_for_real_optimizer). ZeRO-1 and 2
    with their states on the host have room for the largest gradient, to add what waits there (temp_grad_buffer_for_gpu_offload)."""
    ddp = np.where(c.uses("ddp"), trained_bytes(scenario), 0.0)
    returning = largest_elements(scenario) * module_bytes(scenario)
    offloaded = np.where(c.uses("zero1", "zero2") & c.offloads_optimizer, returning, 0.0)
    return cast(Floats, ddp + offloaded + np.where(c.uses("zero3"), bucket_bytes(scenario), 0.0))


def bucket_bytes(scenario: Scenario) -> float:
    """DeepSpeed's reduce bucket, whole. There is one: below stage 3 overlap_comm, which would fill a second, is off in what
    is emitted, and stage 3 copies each into a new tensor instead (stage3.py, reduce_scatter_coalesced)."""
    return reduce_bucket_elements(scenario.model.hidden_size) * module_bytes(scenario)


def module_bytes(scenario: Scenario) -> float:
    """Of an element of DeepSpeed's module, and so of its gradients."""
    return 2.0 if _low_module(scenario) else 4.0


def gradient_element_bytes(scenario: Scenario, c: Columns) -> Floats:
    """Of a weight's whole gradient: FSDP2's mixed precision has it in the compute dtype until it is reduced."""
    own = np.where(c.uses("fsdp"), float(scenario.compute_bytes), float(scenario.trainable_bytes))
    return cast(Floats, np.where(c.deepspeed, module_bytes(scenario), own))


def whole_gradient_bytes(scenario: Scenario, c: Columns) -> Floats:
    """The same, of a weight on average: tensor-parallel ranks have a part of the matrices'."""
    return cast(Floats, gradient_element_bytes(scenario, c) / _trainable_tensor_shards(scenario, c))


def _states_in_fp32(scenario: Scenario) -> float:
    """Optimizer states a parameter when the optimizer sees fp32 masters."""
    return 8.0 if scenario.optimizer.startswith("adamw_torch") else scenario.optimizer_bytes


def _uneven(scenario: Scenario, c: Columns) -> Floats:
    """Of what is trained."""
    return uneven.of_model(scenario, c) if scenario.is_full else np.ones(len(c))


def _trainable_tensor_shards(scenario: Scenario, c: Columns) -> Floats:
    """Adapters are replicated over tensor-parallel ranks; a fully trained model's matrices are not."""
    return 1.0 / split.share(scenario, c) if scenario.is_full else np.ones(len(c))
