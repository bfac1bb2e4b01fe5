"""What is live at the top of each phase of a run, by item: the closed form's account of allocated bytes."""

from __future__ import annotations

from typing import Final, cast

import numpy as np

from axoc.cost import flops, generation, gradient_terms, states, zero
from axoc.cost.activations import activations
from axoc.cost.adafactor import adafactor_bytes
from axoc.cost.collectives import collectives, subgroup_elements
from axoc.cost.columns import Bools, Columns, Floats
from axoc.cost.live import Ledger, Live
from axoc.cost.scenario import Scenario
from axoc.units import KIB, MIB

BLAS_HANDLES: Final = 2
"""The thread that runs the forward has one, autograd's has another (ATen/cuda/CublasHandlePool.cpp)."""
HOPPER_WORKSPACE_BYTES: Final = 32 * MIB
OTHER_WORKSPACE_BYTES: Final = 8 * MIB + 128 * KIB
"""cuBLAS's workspace of one handle (parseChosenWorkspaceSize there): the first from compute capability 9.0 on."""


def ledgers(scenario: Scenario, c: Columns) -> dict[str, Ledger]:
    """By phase, in the order of a step."""
    live = _live(scenario, c)
    forward = {"load": _load(live), "forward": _forward(live), "loss": _loss(live)}
    steps = forward | _backward(live) | {"optimizer": _optimizer(live), "evaluate": _evaluate(live)}
    return steps | _without_gradients(live, forward["forward"])


def _load(live: Live) -> Ledger:
    """Before the first step, in which optimizers make their states. DeepSpeed makes its masters with the engine."""
    c, before = live.columns, live.phase()
    masters, none = states.masters(live.scenario, c), np.zeros(len(c))
    kept = np.where(states.held_from_start(c), live.gradients, none)
    own = {"optimizer states": masters, "workspace": none, "gradients": kept}
    built = zero.while_built(live, masters, kept, before["communication buffers"])
    return before | own | {"working set": built}


def _live(scenario: Scenario, c: Columns) -> Live:
    tokens = flops.tokens(scenario, c)
    shared = collectives(scenario, c)
    gradients = np.where(c.uses("zero2"), shared.partition, states.gradients(scenario, c))
    return Live(
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
        waiting=gradient_terms.waiting(scenario, c),
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


def _forward(live: Live) -> Ledger:
    """At the loss, or inside the last block where that needs more: there its weights are gathered too."""
    held, one, shared = live.held, live.held.largest, live.shared
    any_plain = live.columns.checkpointed_layers < live.scenario.model.num_layers
    inside = np.where(any_plain, one.forward - one.kept - one.copies, one.dropping - held.gradient)
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


def _while_copied(live: Live, any_plain: Bools) -> Floats:
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


def _without_gradients(live: Live, forward: Ledger) -> dict[str, Ledger]:
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


def _sampling(live: Live) -> dict[str, Ledger]:
    """Before the first micro-step's forward, when nothing of a step is kept; the prompts of all micro-batches come first, a
    whole pass of them. The reference is asked afterwards, a micro-batch at a time."""
    passing, c = _evaluate(live, always=True), live.columns
    cache = {"keys and values": generation.cache_bytes(live.scenario, c)}
    prompts = {item: passing[item] * c.accumulation for item in ("activations", "working set")}
    logits = {"logits and loss": generation.sampling_bytes(live.scenario, c)}
    asked = {"reference": passing | {"keys and values": np.zeros(len(c))}} if live.scenario.objective.passes else {}
    return {"generate": passing | cache | prompts | logits} | asked


def _loss(live: Live) -> Ledger:
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


def _backward(live: Live) -> dict[str, Ledger]:
    """At the top block, where recomputing begins, at the bottom block, and at the embedding."""
    scenario, c, held, one, shared = live.scenario, live.columns, live.held, live.held.largest, live.shared
    first = live.carried + live.waiting
    plain = scenario.model.num_layers - c.checkpointed_layers
    recomputes, any_plain = c.checkpointed_layers > 0, plain > 0
    masks = np.where(recomputes, held.masks, 0.0)  # arguments of a checkpoint
    again, held_by_one = one.recomputed - held.gradient, one.kept + one.copies
    gathered = shared.inside_backward
    return {
        "backward_first": live.phase(
            gathered_weights=np.where(any_plain, gathered, 0.0),
            gradients=np.where(any_plain, first, 0.0),
            reduction_buffers=np.where(any_plain, shared.reducing(held.plain, one.kept, plain, ~recomputes), 0.0),
            activations=np.where(any_plain, held.plain + held.entries + masks, 0.0),
            autocast_weight_copies=held.copies,
            working_set=np.where(
                any_plain,
                _most(
                    zero.top_of_first(live, one.backward - held_by_one, one.later - held_by_one),
                    shared.fetching_first,
                    zero.head_returned(live, gathered),
                    zero.block_returned(live) - held_by_one,
                ),
                0.0,
            ),
        ),
        "backward_recompute": live.phase(
            gathered_weights=np.where(recomputes, gathered, 0.0),
            gradients=np.where(recomputes, first + gradient_terms.of_plain_blocks(scenario, c, live.gradients), 0.0),
            reduction_buffers=np.where(
                recomputes, shared.reducing(held.entries, held.gradient, c.checkpointed_layers, recomputes), 0.0
            ),
            activations=held.entries + masks,
            working_set=np.where(
                recomputes,
                _most(
                    zero.top_of_first(live, again, one.later + one.apart - held.gradient),
                    shared.fetching_first,
                    zero.head_returned(live, gathered),
                    zero.block_returned(live),
                ),
                0.0,
            ),
        ),
        "backward_last": live.phase(
            gathered_weights=shared.at_bottom + shared.unit,
            gradients=_at_bottom(live, first),
            reduction_buffers=shared.bucket + shared.scattered + shared.held_reduced,
            activations=np.where(recomputes, held.gradient + masks, 0.0),
            working_set=_most(
                np.where(recomputes, again, one.backward),
                zero.pending(live),
                shared.fetching_bottom,
                zero.block_returned(live),
            ),
        ),
        "backward_embedding": _backward_embedding(live, first),
    }


def _most(*parts: Floats) -> Floats:
    return np.maximum.reduce(parts)  # type: ignore[no-any-return]


def _at_bottom(live: Live, first: Floats) -> Floats:
    """Gradients of all that comes after the bottom block; what is reduced as it comes leaves a rank's share of them, under
    FSDP2 of all units but the bottom one."""
    scenario, c = live.scenario, live.columns
    block = gradient_terms.of_one_block(scenario, c)
    whole = np.maximum(live.gradients - gradient_terms.of_embedding(scenario, c) - block, 0.0)
    shares = np.maximum(0.0, gradient_terms.of_blocks(scenario, c, live.gradients) - block * live.shared.units.blocks)
    fresh = np.where(c.uses("zero2"), live.shared.arriving, np.where(gradient_terms.carries(c), 0.0, shares))
    return cast(
        Floats, np.where(gradient_terms.reduces(c), first + fresh, np.where(gradient_terms.carries(c), first, whole))
    )


def _backward_embedding(live: Live, first: Floats) -> Ledger:
    """At the lookup's gradient; or, under ZeRO-1, at the end, where a rank's part is copied out of all gradients."""
    scenario, c, shared = live.scenario, live.columns, live.shared
    blocks = gradient_terms.of_blocks(scenario, c, live.gradients)
    fresh = np.where(c.uses("zero2"), shared.arriving, np.where(gradient_terms.carries(c), 0.0, blocks))
    gradients = np.where(
        gradient_terms.reduces(c), first + fresh, np.where(gradient_terms.carries(c), first, live.gradients)
    )
    working = _most(gradient_terms.embedding_working(scenario, c, live.tokens), zero.last_returned(live))
    at_end = shared.partition - (gradients - live.gradients)
    return live.phase(
        gathered_weights=shared.at_embedding,
        gradients=gradients,
        reduction_buffers=shared.bucket + shared.scattered + shared.held_reduced,
        activations=live.held.gradient,
        working_set=np.where(c.uses("zero1"), np.maximum(working, at_end), working),
    )


def _optimizer(live: Live) -> Ledger:
    temporary = _optimizer_working(live.scenario, live.columns)
    kept, working = zero.stepped(live, temporary)
    return live.phase(gradients=kept, working_set=working)


def _evaluate(live: Live, *, always: bool = False) -> Ledger:
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


def _optimizer_working(scenario: Scenario, c: Columns) -> Floats:
    """Temporaries of the step: none when fused; one parameter-sized list for foreach; Adafactor's of one matrix."""
    if scenario.optimizer == "adamw_torch":
        own = states.trained_bytes(scenario) / c.optimizer_shards
        return cast(Floats, np.where(c.deepspeed, subgroup_elements(scenario, c) * 4.0, own))
    if scenario.optimizer == "adafactor":
        return np.full(len(c), adafactor_bytes(scenario))
    return np.zeros(len(c))
