"""What is live at the top of each phase of a run, by item: the closed form's account of allocated bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from axoc.cost import activations, flops, loss, states
from axoc.cost.columns import Columns, Floats
from axoc.cost.scenario import Scenario
from axoc.units import KIB, MIB

Ledger = dict[str, Floats]
"""Bytes by item, one row a candidate. Every phase names the same items, so that ledgers can be compared."""

ITEMS: Final = ("gradients", "activations", "autocast weight copies", "logits and loss", "working set")
"""What comes and goes, beside what stays."""
BLAS_HANDLES: Final = 2
"""The thread that runs the forward has one, autograd's has another (ATen/cuda/CublasHandlePool.cpp)."""
HOPPER_WORKSPACE_BYTES: Final = 32 * MIB
OTHER_WORKSPACE_BYTES: Final = 8 * MIB + 128 * KIB
"""cuBLAS's workspace of one handle (parseChosenWorkspaceSize there): the first from compute capability 9.0 on."""


@dataclass(frozen=True, kw_only=True)
class _Live:
    """The terms that phases are put together from."""

    scenario: Scenario
    columns: Columns
    numerics: activations.Numerics
    tokens: Floats
    persistent: Ledger
    saved: Ledger
    gradients: Floats
    carried: Floats
    """Gradients that live through the next forward: with accumulation, and under ZeRO-3 always."""
    working: Floats
    """Alive only inside one block's backward."""

    @property
    def block_share(self) -> float:
        """One block's share of all weights, and so of their gradients."""
        return self.scenario.sizes.block / max(1, self.scenario.sizes.total)

    def phase(self, **live: Floats) -> Ledger:
        """The persistent items and ``live``; what is not named is not there."""
        zero = np.zeros(len(self.columns))
        return self.persistent | {item: live.get(item.replace(" ", "_"), zero) for item in ITEMS}


def ledgers(scenario: Scenario, c: Columns) -> dict[str, Ledger]:
    """By phase, in the order of a step."""
    live = _live(scenario, c)
    forward = {"load": live.phase(), "forward": _forward(live), "loss": _loss(live)}
    return forward | _backward(live) | {"optimizer": _optimizer(live), "evaluate": _evaluate(live)}


def _live(scenario: Scenario, c: Columns) -> _Live:
    tokens, n = flops.tokens(scenario, c), activations.numerics(scenario, c)
    gradients = states.gradients(scenario, c)
    return _Live(
        scenario=scenario,
        columns=c,
        numerics=n,
        tokens=tokens,
        persistent={
            "weights": states.weights(scenario, c),
            "optimizer states": states.optimizer(scenario, c),
            "communication buffers": states.buffers(scenario, c),
            "workspace": np.full(len(c), float(_workspace_bytes(scenario))),
        },
        saved=_saved(scenario, c, n, tokens),
        gradients=gradients,
        carried=np.where((c.accumulation > 1) | states.held_from_start(c), gradients, 0.0),
        working=activations.block_working_bytes(scenario, c, n) * tokens,
    )


def _workspace_bytes(scenario: Scenario) -> int:
    """Of the matrix library, which asks once and keeps it."""
    if scenario.on_cpu:
        return 0
    recent = scenario.cluster.accelerator.compute_capability >= (9, 0)
    return BLAS_HANDLES * (HOPPER_WORKSPACE_BYTES if recent else OTHER_WORKSPACE_BYTES)


def _forward(live: _Live) -> Ledger:
    scenario, saved = live.scenario, live.saved
    logits = cast(Floats, loss.PLAIN_FORWARD_BYTES * live.tokens * scenario.model.vocab_size)
    if scenario.fused_loss:  # which computes its gradients in the forward
        logits = loss.loss_bytes(scenario, live.columns, live.tokens, live.numerics)
    return live.phase(
        gradients=live.carried,
        activations=saved["blocks"] + saved["tail"],
        autocast_weight_copies=saved["forward copies"],
        logits_and_loss=logits,
    )


def _loss(live: _Live) -> Ledger:
    saved = live.saved
    return live.phase(
        gradients=live.carried,
        activations=saved["blocks"] + saved["tail"],
        autocast_weight_copies=saved["weight copies"] + saved["head copy"],
        logits_and_loss=loss.loss_bytes(live.scenario, live.columns, live.tokens, live.numerics),
    )


def _backward(live: _Live) -> dict[str, Ledger]:
    """Where blocks are saved, where the first is recomputed, in the last block, and at the embedding."""
    scenario, c, saved, gradients = live.scenario, live.columns, live.saved, live.gradients
    first = live.carried + np.where(c.accumulation > 1, 0.0, _head_gradient(scenario, c))
    within = live.working + gradients * live.block_share
    recomputes = c.checkpointed_layers > 0
    everything = c.checkpointed_layers >= scenario.model.num_layers  # else the last blocks, where it begins, are saved
    # at its widest, in the MLP, a block's own gradients are still to come, but for the down projection's
    to_come = _untied_embedding_gradient(scenario, c) + gradients * (live.block_share - _down_share(scenario))
    return {
        "backward_first": live.phase(
            gradients=first,
            activations=saved["blocks"] + np.where(everything, saved["recomputed block"], 0.0),
            autocast_weight_copies=saved["weight copies"],
            working_set=within,
        ),
        "backward_recompute": live.phase(
            gradients=np.where(recomputes, first + _plain_block_gradients(scenario, c, gradients), 0.0),
            activations=saved["entries"] + saved["recomputed block"],
            working_set=np.where(recomputes, within, 0.0),
        ),
        "backward_last": live.phase(
            gradients=gradients - to_come, activations=saved["last block"], working_set=live.working
        ),
        "backward_embedding": live.phase(gradients=gradients, working_set=_second_embedding_gradient(scenario, c)),
    }


def _optimizer(live: _Live) -> Ledger:
    return live.phase(gradients=live.gradients, working_set=_optimizer_working(live.scenario, live.columns))


def _evaluate(live: _Live) -> Ledger:
    """Nothing is saved for a backward: the stream, and one batch's logits."""
    scenario, saved = live.scenario, live.saved
    logits = loss.eval_bytes(scenario, live.tokens) if scenario.evaluates else np.zeros(len(live.columns))
    return live.phase(
        activations=2 * saved["tail"], autocast_weight_copies=saved["forward copies"], logits_and_loss=logits
    )


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
