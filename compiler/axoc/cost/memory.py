"""Peak memory by phase: persistent bytes plus the maximum over phases, never one sum of everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from axoc.cost import activations, flops, loss, states
from axoc.cost.columns import Columns, Floats
from axoc.cost.scenario import Scenario
from axoc.units import MIB

WORKSPACE_BYTES: Final = 50 * MIB
"""The matrix library's workspace and small tensors; seen on an H100 as a constant (cublasLt asks for 32 MiB on Hopper,
and PyTorch keeps one for each handle and stream)."""
NCCL_BYTES: Final = 952 * MIB
"""Communicators' device buffers: driver-used minus reserved was 1.68 GiB with NCCL up and 0.75 GiB without."""
GROWTH_BYTES: Final = 20 * MIB
"""Expandable segments map large blocks in pages of 20 MiB (c10/cuda/CUDACachingAllocator.cpp, kLargeBuffer)."""

PHASES: Final = (
    "load",
    "forward",
    "loss",
    "backward_first",
    "backward_recompute",
    "backward_last",
    "backward_embedding",
    "optimizer",
    "evaluate",
)


@dataclass(frozen=True, kw_only=True)
class MemoryColumns:
    """Bytes of the fullest rank, one row a candidate."""

    allocated: Floats
    reserved: Floats
    device_used: Floats
    host: Floats
    disk: float
    phase: Floats
    """Index into PHASES of the peak."""
    phases: dict[str, Floats]
    ledgers: dict[str, dict[str, Floats]]
    """Live bytes by phase and item."""


def memory(scenario: Scenario, c: Columns) -> MemoryColumns:
    """Closed form over all candidates at once."""
    ledgers = _ledgers(scenario, c)
    phases = {name: cast(Floats, sum(ledger.values())) for name, ledger in ledgers.items()}
    stacked = np.stack([phases[name] for name in PHASES])
    allocated = stacked.max(axis=0)
    reserved = _reserved(scenario, c, allocated)
    return MemoryColumns(
        allocated=allocated,
        reserved=reserved,
        device_used=_device_used(scenario, c, reserved),
        host=_host(scenario, c, allocated),
        disk=_disk(scenario),
        phase=cast(Floats, stacked.argmax(axis=0)),
        phases=phases,
        ledgers=ledgers,
    )


def _ledgers(scenario: Scenario, c: Columns) -> dict[str, dict[str, Floats]]:
    """What is live at the top of each phase. Every phase names the same items, so that ledgers can be compared."""
    tokens = flops.tokens(scenario, c)
    n = activations.numerics(scenario, c)
    persistent = {
        "weights": states.weights(scenario, c),
        "optimizer states": states.optimizer(scenario, c),
        "communication buffers": states.buffers(scenario, c),
        "workspace": np.full(len(c), 0.0 if scenario.on_cpu else float(WORKSPACE_BYTES)),
    }
    gradients = states.gradients(scenario, c)
    # with accumulation gradients live through the next forward
    carried = np.where((c.accumulation > 1) | states.held_from_start(c), gradients, 0.0)
    saved = _saved(scenario, c, n, tokens)
    blocks, one_block = saved["blocks"], saved["recomputed block"]
    copies, head_copy, tail = saved["weight copies"], saved["head copy"], saved["tail"]
    working = activations.block_working_bytes(scenario, c, n) * tokens
    head_gradient = _head_gradient(scenario, c)
    zero = np.zeros(len(c))

    def phase(grads: Floats, acts: Floats, casts: Floats, logits: Floats, work: Floats) -> dict[str, Floats]:
        return persistent | {
            "gradients": grads,
            "activations": acts,
            "autocast weight copies": casts,
            "logits and loss": logits,
            "working set": work,
        }

    top = loss.loss_bytes(scenario, c, tokens, n)
    forward = (
        top  # the fused loss computes its gradients in the forward
        if scenario.fused_loss
        else loss.PLAIN_FORWARD_BYTES * tokens * scenario.model.vocab_size
    )
    first = carried + np.where(c.accumulation > 1, 0.0, head_gradient)
    everything = c.checkpointed_layers >= scenario.model.num_layers  # else the last blocks, where it begins, are saved
    block_share = scenario.sizes.block / max(1, scenario.sizes.total)
    lookup = _untied_embedding_gradient(scenario, c)
    return {
        "load": persistent
        | {
            "gradients": zero,
            "activations": zero,
            "autocast weight copies": zero,
            "logits and loss": zero,
            "working set": zero,
        },
        "forward": phase(carried, blocks + tail, saved["forward copies"], forward, zero),
        "loss": phase(carried, blocks + tail, copies + head_copy, top, zero),
        "backward_first": phase(
            first, blocks + np.where(everything, one_block, 0.0), copies, zero, working + gradients * block_share
        ),
        "backward_recompute": phase(
            np.where(c.checkpointed_layers > 0, first + _plain_block_gradients(scenario, c, gradients), 0.0),
            saved["entries"] + one_block,
            zero,
            zero,
            np.where(c.checkpointed_layers > 0, working + gradients * block_share, 0.0),
        ),
        # at its widest, in the MLP, a block's own gradients are still to come, but for the down projection's
        "backward_last": phase(
            gradients - lookup - gradients * (block_share - _down_share(scenario)),
            saved["last block"],
            zero,
            zero,
            working,
        ),
        "backward_embedding": phase(gradients, zero, zero, zero, _second_embedding_gradient(scenario, c)),
        "optimizer": phase(gradients, zero, zero, zero, _optimizer_working(scenario, c)),
        "evaluate": phase(
            zero,
            2 * tail,
            saved["forward copies"],
            loss.eval_bytes(scenario, tokens) if scenario.evaluates else zero,
            zero,
        ),
    }


def _saved(scenario: Scenario, c: Columns, n: activations.Numerics, tokens: Floats) -> dict[str, Floats]:
    """Activations and autocast copies. A checkpointed block keeps only its input, in the stream's dtype."""
    layers = scenario.model.num_layers
    checkpointed = c.checkpointed_layers
    per_block = activations.block_token_bytes(scenario, c, n) * tokens
    entry = scenario.model.hidden_size * n.stream * tokens
    blocks = (layers - checkpointed) * per_block + checkpointed * entry
    # autocast copies a weight that is not in the compute dtype: all of them in fp32 training, the head alone in QLoRA
    casts = n.casts * scenario.compute_bytes
    linear = 0 if scenario.quantized else scenario.sizes.blocks_linear
    block_copy = casts * linear / layers / c.tensor_parallel
    # a frozen head is copied anew for each product, and nothing keeps the copy once the fused loss is done with it
    kept_head = 0.0 if scenario.fused_loss and not scenario.is_full else 1.0
    head_copy = kept_head * casts * scenario.sizes.vocabulary_matrix
    return {
        "blocks": blocks,
        "entries": checkpointed * entry,
        "recomputed block": np.where(checkpointed > 0, per_block, 0.0),
        "last block": np.where(checkpointed > 0, entry, 0.0) + per_block,
        "weight copies": block_copy * (layers - checkpointed),
        "head copy": head_copy,
        # autocast keeps every copy until the forward's context ends, checkpointed or not
        "forward copies": block_copy * layers + head_copy,
        "tail": activations.tail_token_bytes(scenario, n) * tokens,
    }


def _plain_block_gradients(scenario: Scenario, c: Columns, gradients: Floats) -> Floats:
    """Gradients of the blocks after the recomputed ones, which are complete when recomputation begins."""
    share = scenario.sizes.blocks / max(1, scenario.sizes.total) if scenario.is_full else 1.0
    plain = 1 - c.checkpointed_layers / scenario.model.num_layers
    return cast(Floats, np.where(c.accumulation > 1, 0.0, gradients * share * plain))


def _down_share(scenario: Scenario) -> float:
    """Share of all trained weights that one block's down projection has."""
    model = scenario.model
    width = model.intermediate_size
    if model.moe is not None:
        width = model.moe.num_experts * model.moe.expert_intermediate_size
    return width * model.hidden_size / max(1, scenario.sizes.total)


def _head_gradient(scenario: Scenario, c: Columns) -> Floats:
    """The first gradient to exist: of the vocabulary matrix."""
    if not scenario.is_full:
        return np.zeros(len(c))
    return scenario.sizes.vocabulary_matrix * float(scenario.trainable_bytes) / c.gradient_shards


def _untied_embedding_gradient(scenario: Scenario, c: Columns) -> Floats:
    """The last gradient to exist, where the embedding is not also the head."""
    if not scenario.is_full or scenario.sizes.lm_head == 0:
        return np.zeros(len(c))
    return scenario.sizes.embedding * float(scenario.trainable_bytes) / c.gradient_shards


def _second_embedding_gradient(scenario: Scenario, c: Columns) -> Floats:
    """A tied matrix gets two gradients, of the head and of the lookup: both live when they are summed."""
    if scenario.is_full and scenario.sizes.lm_head == 0:
        return np.full(len(c), scenario.sizes.vocabulary_matrix * float(scenario.trainable_bytes))
    return np.zeros(len(c))


def _optimizer_working(scenario: Scenario, c: Columns) -> Floats:
    """Temporaries of the step: none when fused; one parameter-sized list for foreach; Adafactor's update of one matrix."""
    trainable = scenario.trainable * float(scenario.trainable_bytes) / c.optimizer_shards
    if scenario.optimizer == "adamw_torch":
        return cast(Floats, trainable)
    if scenario.optimizer == "adafactor":  # the square and its mean, and for low-precision weights fp32 copies of both
        copies = 2.0 if scenario.trainable_bytes == 4 else 4.0
        return np.full(len(c), copies * 4.0 * scenario.sizes.vocabulary_matrix)
    return np.zeros(len(c))


def _reserved(scenario: Scenario, c: Columns, allocated: Floats) -> Floats:
    """Segments the allocator holds: the peak, rounded up to a page, and the hole plain logits leave.

    The compute-dtype logits are freed below their fp32 copies, which are twice as large and cannot go there.
    """
    if scenario.on_cpu:
        return allocated
    tokens = flops.tokens(scenario, c)
    hole = 0.0 if scenario.fused_loss else tokens * scenario.model.vocab_size * float(scenario.compute_bytes)
    return cast(Floats, np.ceil((allocated + hole) / GROWTH_BYTES) * GROWTH_BYTES)


def _device_used(scenario: Scenario, c: Columns, reserved: Floats) -> Floats:
    """What the driver reports: segments, the context, and communicators where there are several ranks."""
    if scenario.on_cpu:
        return reserved
    communicators = np.where((c.world > 1) | c.deepspeed, float(NCCL_BYTES), 0.0)
    return cast(Floats, reserved + scenario.cluster.accelerator.context_bytes + communicators)


PROCESS_HOST_BYTES: Final = 3.5e9
"""Resident bytes of one training process before weights: Python, torch, transformers (CUDA libraries included)."""


def _host(scenario: Scenario, c: Columns, allocated: Floats) -> Floats:
    """Host bytes of one node: processes, weights while loading (a full copy on each rank), what is offloaded."""
    ranks = np.minimum(c.world, scenario.cluster.accelerators_per_node)
    if scenario.on_cpu:
        return cast(Floats, ranks * (allocated + PROCESS_HOST_BYTES / 4))
    loading = scenario.sizes.total * float(scenario.weight_bytes)
    if scenario.quantized:  # read tensor by tensor and quantized on the device: the host holds the largest one
        loading = 4.0 * scenario.sizes.vocabulary_matrix
    sharded_load = c.uses("zero3")  # zero.Init partitions while loading
    held = np.where(sharded_load, loading, ranks * loading)
    return cast(Floats, ranks * PROCESS_HOST_BYTES + np.maximum(held, states.offloaded_host_bytes(scenario, c)))


def _disk(scenario: Scenario) -> float:
    """Two checkpoints (weights and optimizer states of what is trained), and the final model."""
    state = scenario.trainable * (scenario.trainable_bytes + scenario.optimizer_bytes)
    return 2 * state + scenario.sizes.total * float(scenario.weight_bytes)
