"""What DeepSpeed's ZeRO has beside what every strategy has: while its engine is made, in a backward's first block, in its step."""

from __future__ import annotations

from typing import Final, cast

import numpy as np

from axoc.cost import gradient_terms, states
from axoc.cost.buckets import LIVE_ELEMENTS, reduce_bucket_elements
from axoc.cost.collectives import subgroup_elements
from axoc.cost.columns import Bools, Floats
from axoc.cost.live import Live
from axoc.cost.partition import largest_of_block

NORMED_ELEMENTS: Final = 250_000_000
"""At once, in fp64 (stage3.py, _constant_buffered_norm2)."""


def while_built(live: Live, masters: Floats, gradients: Floats, buffers: Floats) -> Floats:
    """While the masters are made: ZeRO-1 and 2 flatten what is trained and then have zeros as large as the masters for a
    moment (initialize_optimizer_states), ZeRO-3 converts a sub-group and clones that, then makes its gradients (stage3.py,
    _create_fp32_partitions)."""
    c = live.columns
    low = live.scenario.trainable * states.module_bytes(live.scenario)
    converted = np.minimum(masters, 4.0 * LIVE_ELEMENTS) - gradients - buffers
    later = np.where(c.offloads_optimizer, buffers, 0.0)
    built = np.where(c.uses("zero3"), converted, np.maximum(masters, low - masters) - later)
    return cast(Floats, np.where(c.deepspeed, np.maximum(0.0, built), 0.0))


def top_of_first(live: Live, whole: Floats, later: Floats) -> Floats:
    """Of the first block's backward, ``whole`` and ``later``, when a matrix's gradient is there. Under ZeRO-2 the last rank's buffer,
    which counts from the start, is made with the second gradient to come: of an untied head's and the final norm's, when the
    head's is there still, or of the final norm's and that matrix's."""
    scenario, c, buffer = live.scenario, live.columns, live.shared.arriving_first
    if not scenario.is_full:
        return whole
    later = later + live.shared.pending
    untied = np.maximum(whole, gradient_terms.of_matrix(scenario, c) + live.held.gradient)
    found = np.maximum(untied if scenario.sizes.lm_head else whole - buffer, later)
    return cast(Floats, np.where(c.uses("zero2") & (buffer > 0), found, whole))


def pending(live: Live) -> Floats:
    """Under ZeRO-2 what is left of a block's backward once a matrix has its gradient, beside one that waits for the next."""
    one, held, c = live.held.largest, live.held, live.columns
    later = one.later + np.where(c.checkpointed_layers > 0, one.apart - held.gradient, 0.0)
    return cast(Floats, np.where(live.shared.pending > 0, later + live.shared.pending, 0.0))


def returned(live: Live, elements: Floats | float) -> Floats:
    """While a gradient of so many elements goes to the host, where the optimizer is there: the norm of a rank's part is of an fp64
    copy. ZeRO-3 writes the part there and fetches it back, beside a copy of the whole that is interleaved by rank, unless it
    divides (partition_grads, _offload_grad_partition_at_boundary)."""
    c, element = live.columns, states.module_bytes(live.scenario)
    part = np.minimum(elements, live.scenario.trainable / c.optimizer_shards)
    share = np.ceil(elements / c.data_parallel)
    whole = np.where(share * c.data_parallel > elements, elements * element, 0.0)
    three = share * element + 8.0 * np.minimum(share, NORMED_ELEMENTS) + whole
    two = 8.0 * part - live.shared.arriving  # at a step's last backward, in which none of those stays
    return cast(Floats, np.where(_offloads(live), np.where(c.uses("zero3"), three, two), 0.0))


def _offloads(live: Live) -> Bools:
    return live.columns.deepspeed & live.columns.offloads_optimizer & (not live.scenario.on_cpu)


def head_returned(live: Live, gathered: Floats) -> Floats:
    """The same of an untied head's, which waits for the final norm's; ``gathered`` is counted already."""
    scenario, c = live.scenario, live.columns
    if not (scenario.is_full and scenario.sizes.lm_head):
        return np.zeros(len(c))
    going = returned(live, float(scenario.sizes.lm_head))
    there = gradient_terms.of_matrix(scenario, c) + live.held.gradient + live.shared.after_loss - gathered
    return cast(Floats, np.where(_offloads(live) & ~c.uses("zero1"), going + there, 0.0))


def block_returned(live: Live) -> Floats:
    """The same of a block's largest matrix, beside what is left of the block's backward; one that the bucket has no room for
    waits for the next. Experts' are so large that what they computed is gone by then, and the router's comes next."""
    scenario, one, c = live.scenario, live.held.largest, live.columns
    largest = largest_of_block(scenario)
    beside = one.later + np.where(c.checkpointed_layers > 0, one.apart - live.held.gradient, 0.0)
    later = beside if scenario.model.moe is None else live.held.gradient
    waits = largest * states.module_bytes(scenario) * (largest > reduce_bucket_elements(scenario.model.hidden_size))
    going = returned(live, largest)
    return cast(Floats, np.where(_offloads(live) & ~c.uses("zero1"), later + waits + going, 0.0))


def last_returned(live: Live) -> Floats:
    """The same at the end of a backward: the embedding's, or all of ZeRO-1's."""
    scenario, c = live.scenario, live.columns
    if not scenario.is_full:
        return returned(live, largest_of_block(scenario))
    tied = scenario.sizes.lm_head == 0
    going = returned(live, float(scenario.sizes.embedding))
    own = 0.0 if tied else scenario.sizes.embedding * states.module_bytes(scenario)
    return cast(Floats, np.where(_offloads(live), going + np.where(c.uses("zero1"), 0.0, own), 0.0))


def stepped(live: Live, temporary: Floats) -> tuple[Floats, Floats]:
    """(gradients, beside them) in the step, of which the optimizer itself takes ``temporary``. DeepSpeed's copy of a rank's
    gradients in fp32 is what its optimizer sees; then the gradients are let go."""
    scenario, c, shared = live.scenario, live.columns, live.shared
    copied = c.deepspeed & ~c.offloads_optimizer
    kept = np.where(copied & ~c.uses("zero3"), shared.partition, live.gradients)
    kept = np.where(c.deepspeed & c.offloads_optimizer, 0.0, kept)
    single = subgroup_elements(scenario, c) * 4.0
    working = np.maximum(shared.copies, single + temporary - np.where(c.uses("zero3"), 0.0, kept))
    on_host = c.offloads_optimizer & (not scenario.on_cpu)
    return kept, cast(Floats, np.where(copied, working, np.where(on_host, shared.copies, temporary)))
