"""What DeepSpeed's ZeRO has beside what every strategy has: while its engine is made, in a backward's first block, in its step."""

from __future__ import annotations

from typing import cast

import numpy as np

from axoc.cost import gradient_terms, states
from axoc.cost.buckets import LIVE_ELEMENTS
from axoc.cost.collectives import subgroup_elements
from axoc.cost.columns import Floats
from axoc.cost.live import Live


def while_built(live: Live, masters: Floats, gradients: Floats, buffers: Floats) -> Floats:
    """While the masters are made: ZeRO-1 and 2 flatten what is trained and then have zeros as large as the masters for a
    moment (initialize_optimizer_states), ZeRO-3 converts a sub-group and clones that, then makes its gradients (stage3.py,
    _create_fp32_partitions)."""
    c = live.columns
    low = live.scenario.trainable * states.module_bytes(live.scenario)
    converted = np.minimum(masters, 4.0 * LIVE_ELEMENTS) - gradients - buffers
    built = np.where(c.uses("zero3"), converted, np.maximum(masters, low - masters))
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


def stepped(live: Live, temporary: Floats) -> tuple[Floats, Floats]:
    """(gradients, beside them) in the step, of which the optimizer itself takes ``temporary``. DeepSpeed's copy of a rank's
    gradients in fp32 is what its optimizer sees; then the gradients are let go."""
    scenario, c, shared = live.scenario, live.columns, live.shared
    copied = c.deepspeed & ~c.offloads_optimizer
    kept = np.where(copied & ~c.uses("zero3"), shared.partition, live.gradients)
    single = subgroup_elements(scenario, c) * 4.0
    working = np.maximum(shared.copies, single + temporary - np.where(c.uses("zero3"), 0.0, kept))
    return kept, cast(Floats, np.where(copied, working, temporary))
