"""Seconds of a forward without gradients: of evaluation, and of an objective's reference."""

from __future__ import annotations

from typing import cast

import numpy as np

from axoc.cost import communication, flops, stretches
from axoc.cost.activations import setting
from axoc.cost.columns import Columns, Floats
from axoc.cost.distinct import distinct
from axoc.cost.kernels import kernels_of
from axoc.cost.launching import host_costs
from axoc.cost.scenario import Scenario


def forward_seconds(scenario: Scenario, c: Columns) -> Floats:
    """One micro-batch through the model without gradients: its kernels or their launches, and the gathers of shards.

    A sharded forward gathers the weights once; like the backward it hides all but the first gather.
    """
    device, host = _forward(scenario, c)
    compute = np.maximum(device, host)
    gather = communication.forward_gather_seconds(scenario, c)
    hidden = communication.HIDDEN_SHARE
    return cast(Floats, compute + np.maximum(gather - compute * hidden, gather * (1 - hidden)))


def launch_seconds(scenario: Scenario, c: Columns) -> Floats:
    """What the host takes to launch one forward, however few its tokens."""
    return _forward(scenario, c)[1]


def _forward(scenario: Scenario, c: Columns) -> tuple[Floats, Floats]:
    """(seconds of the kernels, seconds of their launches)"""
    if not len(c):  # no split of the batch is possible
        return np.zeros(0), np.zeros(0)
    first, which = distinct(c.micro_batch, c.tensor_parallel)
    shapes = c.rows(first)
    s, tokens, kernels = setting(scenario, shapes), flops.tokens(scenario, shapes), kernels_of(scenario)
    costs = host_costs(scenario)
    ends = [stretches.embedding(s, kernels, tokens).forward, stretches.tail(s, kernels, tokens).forward]
    parts = [(1.0, end) for end in ends]
    parts += [(count, passes.forward) for count, passes in stretches.grouped_blocks(s, kernels, tokens)]
    device = sum((count * part.seconds for count, part in parts), np.zeros(len(shapes)))
    host = sum((count * np.asarray(part.host(costs)) for count, part in parts), np.zeros(len(shapes)))
    whole = (len(shapes),)
    return cast(Floats, np.broadcast_to(device, whole)[which]), cast(Floats, np.broadcast_to(host, whole)[which])
