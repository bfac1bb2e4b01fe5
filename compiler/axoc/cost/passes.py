"""Seconds of a forward without gradients: of evaluation, and of an objective's reference."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np

from axoc.cost import lengths, overlap, stretches
from axoc.cost.activations import programs, timed_setting
from axoc.cost.columns import Columns, Floats
from axoc.cost.distinct import distinct
from axoc.cost.kernels import kernels_of
from axoc.cost.launching import host_costs
from axoc.cost.scenario import Scenario


def forward_seconds(scenario: Scenario, c: Columns) -> Floats:
    """One micro-batch through the model without gradients: its kernels or their launches, and the gathers of shards.

    A sharded forward gathers the weights once, and hides all but the first gather where computing takes longer.
    """
    device, host = _forward(scenario, c)
    compute = np.maximum(device, host)
    return cast(Floats, compute + overlap.forward_exposed(scenario, c, compute))


def launch_seconds(scenario: Scenario, c: Columns) -> Floats:
    """What the host takes to launch one forward, however few its tokens."""
    return _forward(scenario, c)[1]


def _forward(scenario: Scenario, c: Columns) -> tuple[Floats, Floats]:
    """(seconds of the kernels, seconds of their launches)"""
    if not len(c):  # no split of the batch is possible
        return np.zeros(0), np.zeros(0)
    first, which = distinct(c.micro_batch, c.tensor_parallel, c.variant)
    shapes = c.rows(first)
    device, host = np.zeros(len(shapes)), np.zeros(len(shapes))
    for variant, rows in programs(scenario, shapes, np.zeros(len(shapes), dtype=np.int64)):
        device[rows], host[rows] = _alike(variant, shapes.rows(rows).of_one_variant())
    return device[which], host[which]


def _alike(scenario: Scenario, c: Columns) -> tuple[Floats, Floats]:
    """Of shapes that run one program."""
    s, tokens, kernels = timed_setting(scenario, c), lengths.micro_batch_tokens(scenario, c), kernels_of(scenario)
    inside, outside = host_costs(scenario), host_costs(replace(scenario, compile=False))
    ends = [stretches.embedding(s, kernels, tokens).forward, stretches.tail(s, kernels, tokens).forward]
    parts = [(1.0, end, outside) for end in ends]
    parts += [(count, passes.forward, inside) for count, passes in stretches.grouped_blocks(s, kernels, tokens)]
    device = sum((count * part.seconds for count, part, _ in parts), np.zeros(len(c)))
    host = sum((count * np.asarray(part.host(costs)) for count, part, costs in parts), np.zeros(len(c)))
    return device, host
