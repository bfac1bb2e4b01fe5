"""What is live at the top of each phase of a run, by item: the closed form's account of allocated bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from axoc.cost import flops, generation, split, states
from axoc.cost.activations import Activations, activations
from axoc.cost.adafactor import adafactor_bytes
from axoc.cost.buckets import LIVE_ELEMENTS
from axoc.cost.collectives import Collectives, collectives, subgroup_elements
from axoc.cost.columns import Bools, Columns, Floats
from axoc.cost.scenario import Scenario
from axoc.units import KIB, MIB

Ledger = dict[str, Floats]
"""Bytes by item, one row a candidate. Every phase names the same items, so that ledgers can be compared."""

ITEMS: Final = (
    "gathered weights",
    "gradients",
    "reduction buffers",
    "activations",
    "autocast weight copies",
    "logits and loss",
    "working set",
)
"""What comes and goes, beside what stays."""
BLAS_HANDLES: Final = 2
"""The thread that runs the forward has one, autograd's has another (ATen/cuda/CublasHandlePool.cpp)."""
HOPPER_WORKSPACE_BYTES: Final = 32 * MIB
OTHER_WORKSPACE_BYTES: Final = 8 * MIB + 128 * KIB
"""cuBLAS's workspace of one handle (parseChosenWorkspaceSize there): the first from compute capability 9.0 on."""

EMBEDDING_SORTS_ABOVE: Final = 3072
"""Tokens (ATen/native/cuda/Embedding.cu, embedding_dense_backward_cuda)."""


@dataclass(frozen=True, kw_only=True)
class _Live:
    """The terms that phases are put together from."""

    scenario: Scenario
    columns: Columns
    tokens: Floats
    persistent: Ledger
    held: Activations
    shared: Collectives
    gradients: Floats
    """That a rank keeps once a backward is complete: of everything that is trained, or of its share."""
    carried: Floats
    """Gradients that live through the next forward: with accumulation, and under ZeRO-3 always."""
    waiting: Floats
    """Of the vocabulary matrix, from the loss on: the first gradient to exist. A tied one waits for the lookup's."""

    def phase(self, **live: Floats) -> Ledger:
        """The persistent items and ``live``; what is not named is not there."""
        zero = np.zeros(len(self.columns))
        return self.persistent | {item: live.get(item.replace(" ", "_"), zero) for item in ITEMS}


def ledgers(scenario: Scenario, c: Columns) -> dict[str, Ledger]:
    """By phase, in the order of a step."""
    live = _live(scenario, c)
    forward = {"load": _load(live), "forward": _forward(live), "loss": _loss(live)}
    steps = forward | _backward(live) | {"optimizer": _optimizer(live), "evaluate": _evaluate(live)}
    return steps | _without_gradients(live, forward["forward"])


def _load(live: _Live) -> Ledger:
    """Before the first step, in which optimizers make their states. DeepSpeed makes its masters with the engine: ZeRO-1 and
    2 flatten what is trained and then have zeros as large as the masters for a moment (initialize_optimizer_states), ZeRO-3
    converts a sub-group and clones that, then makes its gradients (stage3.py, _create_fp32_partitions)."""
    c, before = live.columns, live.phase()
    masters, zero = states.masters(live.scenario, c), np.zeros(len(c))
    low = live.scenario.trainable * states.module_bytes(live.scenario)
    kept = np.where(states.held_from_start(c), live.gradients, zero)
    converted = np.minimum(masters, 4.0 * LIVE_ELEMENTS) - kept - before["communication buffers"]
    built = np.where(c.uses("zero3"), converted, np.maximum(masters, low - masters))
    own = {"optimizer states": masters, "workspace": zero, "gradients": kept}
    return before | own | {"working set": np.where(c.deepspeed, np.maximum(0.0, built), zero)}


def _live(scenario: Scenario, c: Columns) -> _Live:
    tokens = flops.tokens(scenario, c)
    shared = collectives(scenario, c)
    gradients = np.where(c.uses("zero2"), shared.partition, states.gradients(scenario, c))
    return _Live(
        scenario=scenario,
        columns=c,
        tokens=tokens,
        persistent={
            "weights": states.weights(scenario, c),
            "optimizer states": states.optimizer(scenario, c),
            "communication buffers": states.buffers(scenario, c),
            "workspace": np.full(len(c), float(workspace_bytes(scenario))),
        }
        | _reference(scenario, c),
        held=activations(scenario, c, tokens),
        shared=shared,
        gradients=gradients,
        carried=np.where((c.accumulation > 1) | states.held_from_start(c), gradients, 0.0),
        waiting=_waiting(scenario, c),
    )


def _reference(scenario: Scenario, c: Columns) -> Ledger:
    """A second copy of the base, frozen, where the policy is held against one."""
    return {"reference model": states.reference(scenario, c)} if scenario.objective.holds_reference else {}


def workspace_bytes(scenario: Scenario) -> int:
    """Of the matrix library, which asks once and keeps it."""
    if scenario.on_cpu:
        return 0
    recent = scenario.cluster.accelerator.compute_capability >= (9, 0)
    return BLAS_HANDLES * (HOPPER_WORKSPACE_BYTES if recent else OTHER_WORKSPACE_BYTES)


def _forward(live: _Live) -> Ledger:
    """At the loss, or inside the last block where that needs more: there its weights are gathered too."""
    held, one, shared = live.held, live.held.largest, live.shared
    any_plain = live.columns.checkpointed_layers < live.scenario.model.num_layers
    inside = np.where(any_plain, one.forward - one.kept - one.copies, one.light - held.gradient)
    inside = inside + np.where(
        live.columns.checkpointed_layers == 0, one.apart, 0.0
    )  # the model's frame: inputs_embeds
    inside = np.maximum(inside, shared.fetching_forward) + shared.inside_forward - shared.at_head
    return live.phase(
        gathered_weights=shared.at_head,
        gradients=live.carried,
        reduction_buffers=shared.bucket_stays,
        activations=held.plain + held.entries + held.masks,
        autocast_weight_copies=held.forward_copies,
        logits_and_loss=held.tail.forward,
        working_set=np.maximum(0.0, np.maximum(inside, _while_copied(live, any_plain)) - held.tail.forward),
    )


def _while_copied(live: _Live, any_plain: Bools) -> Floats:
    """Beside what a forward's end has: the most while FSDP2 copies a unit's weights out of its gather, with the gather before
    it still there. The head's, the last block's, or, of little activations, the first block's after the embedding's."""
    held, one, shared = live.held, live.held.largest, live.shared
    own = np.where(any_plain, one.kept + one.copies - held.gradient, 0.0)
    blocks = shared.root + shared.unit + 2 * shared.in_flight - shared.at_head - own
    first = shared.root + shared.waiting + held.gradient - shared.at_head - held.plain - held.entries
    frame = held.gradient + np.where(
        live.columns.checkpointed_layers == 0, one.apart, 0.0
    )  # last output, inputs_embeds
    untied = shared.in_flight + frame if live.scenario.sizes.lm_head else np.zeros(len(live.columns))
    found = np.maximum(untied, np.maximum(blocks, first))
    return cast(Floats, np.where(live.columns.uses("fsdp"), found, 0.0))


def _without_gradients(live: _Live, forward: Ledger) -> dict[str, Ledger]:
    """The objective's other passes, of which the last comes after the forward and before its backward: what the forward
    keeps is there (TRL computes the reference's log-probabilities after the policy's)."""
    if live.scenario.objective.generated is not None:
        return _sampling(live)
    if not live.scenario.objective.passes:
        return {}
    passing = _evaluate(live, always=True)
    kept = {"activations", "autocast weight copies", "gradients", "reduction buffers"}
    both = {item: forward[item] + (passing[item] if item == "activations" else 0.0) for item in kept}
    stays = {"logits and loss": live.held.tail.kept + passing["logits and loss"]}
    return {"reference": passing | both | stays}


def _sampling(live: _Live) -> dict[str, Ledger]:
    """Before the first micro-step's forward, when nothing of a step is kept; the prompts of all micro-batches come first, a
    whole pass of them. The reference is asked afterwards, a micro-batch at a time."""
    passing, c = _evaluate(live, always=True), live.columns
    cache = {"keys and values": generation.cache_bytes(live.scenario, c)}
    prompts = {item: passing[item] * c.accumulation for item in ("activations", "working set")}
    logits = {"logits and loss": generation.sampling_bytes(live.scenario, c)}
    asked = {"reference": passing | {"keys and values": np.zeros(len(c))}} if live.scenario.objective.passes else {}
    return {"generate": passing | cache | prompts | logits} | asked


def _loss(live: _Live) -> Ledger:
    held = live.held
    masks = np.where(live.columns.checkpointed_layers > 0, held.masks, 0.0)
    return live.phase(
        gathered_weights=live.shared.at_loss,
        gradients=live.carried,
        reduction_buffers=live.shared.bucket_stays,
        activations=held.plain + held.entries + masks,
        autocast_weight_copies=held.copies,
        logits_and_loss=held.tail.backward,
    )


def _backward(live: _Live) -> dict[str, Ledger]:
    """At the top block, where recomputing begins, at the bottom block, and at the embedding."""
    scenario, c, held, one, shared = live.scenario, live.columns, live.held, live.held.largest, live.shared
    first = live.carried + live.waiting
    recomputes, any_plain = c.checkpointed_layers > 0, c.checkpointed_layers < scenario.model.num_layers
    masks = np.where(recomputes, held.masks, 0.0)  # arguments of a checkpoint
    again, held_by_one = one.recomputed - held.gradient, one.kept + one.copies
    gathered = shared.inside_backward
    return {
        "backward_first": live.phase(
            gathered_weights=np.where(any_plain, gathered, 0.0),
            gradients=np.where(any_plain, first, 0.0),
            reduction_buffers=np.where(any_plain, shared.reducing(held.plain, one.kept), 0.0),
            activations=np.where(any_plain, held.plain + held.entries + masks, 0.0),
            autocast_weight_copies=held.copies,
            working_set=np.where(
                any_plain,
                np.maximum(
                    _top_of_first(live, one.backward - held_by_one, one.later - held_by_one), shared.fetching_first
                ),
                0.0,
            ),
        ),
        "backward_recompute": live.phase(
            gathered_weights=np.where(recomputes, gathered, 0.0),
            gradients=np.where(recomputes, first + _plain_block_gradients(scenario, c, live.gradients), 0.0),
            reduction_buffers=np.where(recomputes, shared.reducing(held.entries, held.gradient), 0.0),
            activations=held.entries + masks,
            working_set=np.where(
                recomputes,
                np.maximum(_top_of_first(live, again, one.later + one.apart - held.gradient), shared.fetching_first),
                0.0,
            ),
        ),
        "backward_last": live.phase(
            gathered_weights=shared.at_bottom + shared.unit,
            gradients=_at_bottom(live, first),
            reduction_buffers=shared.bucket + shared.scattered + shared.held_reduced,
            activations=np.where(recomputes, held.gradient + masks, 0.0),
            working_set=np.maximum(
                np.where(recomputes, again + _above_the_bottom(live), one.backward),
                np.maximum(_pending(live), shared.fetching_bottom),
            ),
        ),
        "backward_embedding": _backward_embedding(live, first),
    }


def _top_of_first(live: _Live, whole: Floats, later: Floats) -> Floats:
    """Of the first block's backward, ``whole`` and ``later``, when a matrix's gradient is there. Under ZeRO-2 the last rank's buffer,
    which counts from the start, is made with the second gradient to come: of an untied head's and the final norm's, when the
    head's is there still, or of the final norm's and that matrix's."""
    scenario, c, buffer = live.scenario, live.columns, live.shared.arriving_first
    if not scenario.is_full:
        return whole
    later = later + live.shared.pending
    untied = np.maximum(whole, _matrix_gradient(scenario, c) + live.held.gradient)
    found = np.maximum(untied if scenario.sizes.lm_head else whole - buffer, later)
    return cast(Floats, np.where(c.uses("zero2") & (buffer > 0), found, whole))


def _pending(live: _Live) -> Floats:
    """Under ZeRO-2 what is left of a block's backward once a matrix has its gradient, beside one that waits for the next."""
    one, held, c = live.held.largest, live.held, live.columns
    later = one.later + np.where(c.checkpointed_layers > 0, one.apart - held.gradient, 0.0)
    return cast(Floats, np.where(live.shared.pending > 0, later + live.shared.pending, 0.0))


def _above_the_bottom(live: _Live) -> Floats:
    """By how much more the block above the bottom one needs, which FSDP2 still prefetches a block beside: where a rank's
    share of a block's gradients is small it is all that is missing there."""
    scenario, c, shared = live.scenario, live.columns, live.shared
    more = shared.root + shared.in_flight - shared.at_bottom + live.held.gradient - _block_gradient(scenario, c)
    several = c.uses("fsdp") & ~_carries(c) & (c.checkpointed_layers > 1)
    return cast(Floats, np.where(several, np.maximum(0.0, more), 0.0))


def _at_bottom(live: _Live, first: Floats) -> Floats:
    """Gradients of all that comes after the bottom block; what is reduced as it comes leaves a rank's share of them."""
    scenario, c = live.scenario, live.columns
    block = _block_gradient(scenario, c)
    whole = np.maximum(live.gradients - _embedding_gradient(scenario, c) - block, 0.0)
    shares = _gradients_of_blocks(scenario, c, live.gradients) - block
    fresh = np.where(c.uses("zero2"), live.shared.arriving, np.where(_carries(c), 0.0, shares))
    return cast(Floats, np.where(_reduces(c), first + fresh, np.where(_carries(c), first, whole)))


def _backward_embedding(live: _Live, first: Floats) -> Ledger:
    """At the lookup's gradient; or, under ZeRO-1, at the end, where a rank's part is copied out of all gradients."""
    scenario, c, shared = live.scenario, live.columns, live.shared
    blocks = _gradients_of_blocks(scenario, c, live.gradients)
    fresh = np.where(c.uses("zero2"), shared.arriving, np.where(_carries(c), 0.0, blocks))
    gradients = np.where(_reduces(c), first + fresh, np.where(_carries(c), first, live.gradients))
    working = _embedding_working(scenario, c, live.tokens)
    at_end = shared.partition - (gradients - live.gradients)
    return live.phase(
        gathered_weights=shared.at_embedding,
        gradients=gradients,
        reduction_buffers=shared.bucket + shared.scattered + shared.held_reduced,
        activations=live.held.gradient,
        working_set=np.where(c.uses("zero1"), np.maximum(working, at_end), working),
    )


def _reduces(c: Columns) -> Bools:
    """Whole gradients are reduced as they come, and let go of."""
    return c.uses("zero2", "zero3", "fsdp")


def _carries(c: Columns) -> Bools:
    """Gradients are there when a backward begins."""
    return (c.accumulation > 1) | states.held_from_start(c)


def _optimizer(live: _Live) -> Ledger:
    """DeepSpeed's copy of a rank's gradients in fp32 is what its optimizer sees; then the gradients are let go."""
    scenario, c, shared = live.scenario, live.columns, live.shared
    copied = c.deepspeed & ~c.offloads_optimizer
    kept = np.where(copied & ~c.uses("zero3"), shared.partition, live.gradients)
    single = subgroup_elements(scenario, c) * 4.0
    temporary = _optimizer_working(scenario, c)
    working = np.maximum(shared.copies, single + temporary - np.where(c.uses("zero3"), 0.0, kept))
    return live.phase(gradients=kept, working_set=np.where(copied, working, temporary))


def _evaluate(live: _Live, *, always: bool = False) -> Ledger:
    """Nothing is kept for a backward: the stream, one block, or one batch's logits. FSDP2 still has the head from the batch
    before, ZeRO-3 its own gradients and the top blocks, which it kept for a backward."""
    if not (live.scenario.evaluates or always):
        return live.phase()
    held, shared, three = live.held, live.shared, live.columns.uses("zero3")
    gathered = shared.at_evaluated_head
    blocks = np.where(three, shared.evaluated_inside, shared.resident + shared.unit + shared.in_flight)
    inside = blocks + np.maximum(held.largest.light, shared.fetching_evaluated)
    waiting = np.where(live.columns.uses("fsdp"), shared.resident + shared.waiting + held.gradient, 0.0)
    return live.phase(
        gathered_weights=gathered,
        gradients=np.where(states.held_from_start(live.columns), live.gradients, 0.0),
        activations=held.masks,
        autocast_weight_copies=held.light_copies,
        logits_and_loss=held.tail.light,
        working_set=np.maximum(0.0, np.maximum(inside, waiting) - gathered - held.tail.light),
    )


def _plain_block_gradients(scenario: Scenario, c: Columns, gradients: Floats) -> Floats:
    """Gradients of the blocks after the recomputed ones, which are complete when recomputation begins."""
    share = split.blocks(scenario, c) if scenario.is_full else 1.0
    plain = 1 - c.checkpointed_layers / scenario.model.num_layers
    return cast(Floats, np.where(_carries(c), 0.0, gradients * share * plain))


def _block_gradient(scenario: Scenario, c: Columns) -> Floats:
    """Of one block."""
    one = scenario.sizes.block / max(1, scenario.sizes.blocks)
    share = split.blocks(scenario, c) * one if scenario.is_full else 1 / scenario.model.num_layers
    return cast(Floats, states.gradients(scenario, c) * share)


def _gradients_of_blocks(scenario: Scenario, c: Columns, gradients: Floats) -> Floats:
    """Of all blocks."""
    return gradients * split.blocks(scenario, c) if scenario.is_full else gradients


def _waiting(scenario: Scenario, c: Columns) -> Floats:
    """A tied one waits for the lookup's; an untied one is reduced at once where gradients are reduced as they come, which
    under FSDP2 leaves a share of it."""
    if not scenario.is_full:
        return np.zeros(len(c))
    tied = 0.0 if scenario.sizes.lm_head else 1.0
    added = np.where(_carries(c), tied, 1.0)  # an untied gradient is added at once to the one that is there
    share = np.where(c.uses("fsdp") & ~_carries(c), 1.0 / c.gradient_shards, 0.0)
    stays = np.where(_reduces(c), np.maximum(tied, share), added)
    return cast(Floats, _matrix_gradient(scenario, c) * stays)


def _matrix_gradient(scenario: Scenario, c: Columns) -> Floats:
    """Of the head's matrix, a rank's whole part."""
    return split.matrix(scenario, c) * states.gradient_element_bytes(scenario, c)


def _embedding_gradient(scenario: Scenario, c: Columns) -> Floats:
    """The last gradient to exist, where the embedding is not also the head."""
    if not scenario.is_full or scenario.sizes.lm_head == 0:
        return np.zeros(len(c))
    return scenario.sizes.embedding * states.gradient_element_bytes(scenario, c)


def _embedding_working(scenario: Scenario, c: Columns, tokens: Floats) -> Floats:
    """The lookup's gradient beside one that waits for it or is there; above 3,072 tokens its rows are summed in parts
    (ATen/native/cuda/EmbeddingBackwardKernel.cu): fp32 rows, one for each ten tokens and for each that may differ."""
    if not scenario.is_full:
        return np.zeros(len(c))
    sizes = scenario.sizes
    tied = sizes.lm_head == 0
    element = states.gradient_element_bytes(scenario, c)
    matrix = _matrix_gradient(scenario, c) if tied else scenario.sizes.vocabulary_matrix * element
    second = np.where(_carries(c) | _reduces(c) | tied, matrix, 0.0)
    rows = np.floor(tokens / 10) + np.minimum(tokens, scenario.model.vocab_size)
    parts = np.where(tokens > EMBEDDING_SORTS_ABOVE, rows * scenario.model.hidden_size * 4.0, 0.0)
    return cast(Floats, second + np.maximum(parts, np.where(_summed_apart(scenario, c) & tied, matrix, 0.0)))


def _summed_apart(scenario: Scenario, c: Columns) -> Bools:
    """A tied matrix' two gradients are summed in a third tensor where the head's is a view (of its product, transposed):
    autograd adds in place only into memory that one tensor alone refers to (torch/csrc/autograd/input_buffer.cpp). A
    cast of autocast's makes it one, Liger's is its own, and so is that of ZeRO-3's linear layer (deepspeed
    runtime/zero/linear.py). Seen with torch's profiler on tied matrices."""
    autocast = ~(c.deepspeed | c.uses("fsdp")) & (scenario.mixed_precision != "no")
    casts = autocast & (scenario.weight_bytes > scenario.compute_bytes)
    return cast(Bools, ~casts & ~c.uses("zero3") & (scenario.each(c, lambda s: s.fused_loss) == 0))


def _optimizer_working(scenario: Scenario, c: Columns) -> Floats:
    """Temporaries of the step: none when fused; one parameter-sized list for foreach; Adafactor's of one matrix."""
    if scenario.optimizer == "adamw_torch":
        own = states.trained_bytes(scenario) / c.optimizer_shards
        return cast(Floats, np.where(c.deepspeed, subgroup_elements(scenario, c) * 4.0, own))
    if scenario.optimizer == "adafactor":
        return np.full(len(c), adafactor_bytes(scenario))
    return np.zeros(len(c))
