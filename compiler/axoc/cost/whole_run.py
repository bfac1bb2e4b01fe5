"""Seconds of a whole run, from a fresh machine to the last file: start-up, training, evaluation, checkpoints.

Training comes from the step's model. The rest needs rates of disks, networks and tokenizers that no inventory states: each
is one constant here or in interruptions.py, with where it is from. They are assumptions of the right size, so they are shown item by item.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

import numpy as np

from axoc.cost.blocks import groups
from axoc.cost.columns import Columns, Floats
from axoc.cost.disk import ENVIRONMENT_BYTES, disk
from axoc.cost.interruptions import (
    DISK_BYTES_PER_SECOND,
    PROCESS_SECONDS,
    expected_seconds,
    loss_seconds,
    save_seconds,
    saves,
)
from axoc.cost.lengths import rows_per_sequence
from axoc.cost.passes import forward_seconds
from axoc.cost.scenario import Scenario
from axoc.facts.failures import failure_rate

DOWNLOAD_BYTES_PER_SECOND: Final = 500e6
"""Of one node, from a hub or a registry. An assumption: many parallel streams of the 100 MB/s or so that one HTTPS
connection reaches, on the 25 Gbit/s or more that nodes with accelerators have."""
TOKENIZED_BYTES_PER_SECOND: Final = 50e6
"""Of one node. "Takes less than 20 seconds to tokenize a GB of text on a server's CPU":
https://github.com/huggingface/tokenizers#main-features"""
COMPILE_SECONDS: Final = 7.0
"""Of one kind of block, forward and backward, with torch.compile; blocks alike share it. First steps of compiled runs took 4
to 7 s longer than of others on an H100's host (benchmarks/packed_step.py)."""
COMPILE_LIGHT_SECONDS: Final = 3.0
"""Of a kind of block without gradients, as evaluation runs it: another graph, and no backward. An assumption."""

WHOLE_EVALUATIONS: Final = 2
"""Before and after training, on all held-out rows."""

START_UP: Final = ("environment", "model download", "tokenization", "process start", "model load")
INTERRUPTIONS: Final = "interruptions"
BEFORE_PROCESSES: Final = (*START_UP[:3], INTERRUPTIONS)
"""Done before the training processes start, or expected of many runs: no part of what a run measures of itself."""
LEAST_LOST_SECONDS: Final = 1.0
"""Expected, from which on interruptions are an item."""
ASSUMED: Final = {
    "environment": f"the pinned wheels at {DOWNLOAD_BYTES_PER_SECOND / 1e6:g} MB/s: an assumption",
    "model download": f"the model's files to each node at {DOWNLOAD_BYTES_PER_SECOND / 1e6:g} MB/s: an assumption",
    "tokenization": f"the data's bytes at {TOKENIZED_BYTES_PER_SECOND / 1e6:g} MB/s, as the tokenizers library states",
    "process start": "imports, contexts and communicators: an assumption",
    "model load": f"the model's files from disk at {DISK_BYTES_PER_SECOND / 1e9:g} GB/s: an assumption",
    "compilation": f"{COMPILE_SECONDS:g} s a kind of block, as measured, and {COMPILE_LIGHT_SECONDS:g} s more to evaluate",
    "training": "steps times the predicted step",
    "evaluation": "forward passes over the held-out rows before, during and after training: the step's model",
    "checkpoints": f"bytes of the disk's ledger at {DISK_BYTES_PER_SECOND / 1e9:g} GB/s a writing node: an assumption",
    INTERRUPTIONS: "failures a day of so many accelerators, each losing half an interval between checkpoints and a new start",
    "final model": f"its files at {DISK_BYTES_PER_SECOND / 1e9:g} GB/s: an assumption",
}
"""What each item is and rests on, in words."""


def whole_run(scenario: Scenario, c: Columns, step_seconds: Floats) -> dict[str, Floats]:
    """Seconds by item, one row a candidate. Training and what recurs in it only where the number of steps is known."""
    items = {item: np.full(len(c), seconds) for item, seconds in _start_up(scenario).items()}
    items["compilation"] = scenario.each(c, compilation_seconds)
    if scenario.steps is None:
        return items
    training = step_seconds * scenario.each(c, lambda s: s.steps or 0)
    items |= {
        "training": training,
        "evaluation": scenario.by_variant(c, _evaluation),
        "checkpoints": _stepped(scenario, c, step_seconds, lambda v, r, step: saves(v, r, step) * save_seconds(v, r)),
    }
    busy = training + items["evaluation"] + items["checkpoints"]
    items[INTERRUPTIONS] = interrupted_seconds(scenario, c, step_seconds, busy, failure_rate(scenario.cluster).per_day)
    return items | {"final model": _final(scenario, c)}


def interrupted_seconds(
    scenario: Scenario, c: Columns, step_seconds: Floats, busy: Floats, failures_per_day: float
) -> Floats:
    """Expected to be lost of ``busy`` seconds."""
    each = _stepped(scenario, c, step_seconds, loss_seconds)
    lost = expected_seconds(busy, each, failures_per_day)
    return np.where(lost < LEAST_LOST_SECONDS, 0.0, lost)


def _stepped(
    scenario: Scenario, c: Columns, step_seconds: Floats, figure: Callable[[Scenario, Columns, Floats], Floats]
) -> Floats:
    """A figure that depends on a variant's steps and on how long they take."""
    found = np.zeros(len(c))
    for index in range(max(1, len(scenario.variants))):
        rows = c.variant == index
        found[rows] = figure(scenario.variant(index), c.rows(rows).of_one_variant(), step_seconds[rows])
    return found


def compilation_seconds(scenario: Scenario) -> float:
    """In the first steps: each kind of block once, the others reuse it."""
    if not scenario.compile:
        return 0.0
    kinds = sum(len(group) for group in groups(scenario))
    return kinds * (COMPILE_SECONDS + (COMPILE_LIGHT_SECONDS if scenario.evaluates else 0.0))


def _start_up(scenario: Scenario) -> dict[str, float]:
    """Nodes start side by side, each with its own caches: the run waits for one node's work."""
    kind = "cpu" if scenario.on_cpu else "gpu"
    model = float(scenario.sizes.total) * scenario.file_bytes
    return {
        "environment": ENVIRONMENT_BYTES[kind] / DOWNLOAD_BYTES_PER_SECOND,
        "model download": model / DOWNLOAD_BYTES_PER_SECOND if scenario.downloads else 0.0,
        "tokenization": float(scenario.data_bytes or 0) / TOKENIZED_BYTES_PER_SECOND,
        "process start": PROCESS_SECONDS[kind],
        "model load": model / DISK_BYTES_PER_SECOND,
    }


def _evaluation(scenario: Scenario, c: Columns) -> Floats:
    """Batches of one rank, the last one taken full: twice of all held-out rows, and within training of its sample."""
    rows = scenario.held_out_rows
    if not rows or not scenario.evaluations:
        return np.zeros(len(c))
    sampled = min(rows, rows if scenario.sampled_rows is None else scenario.sampled_rows)
    batches = WHOLE_EVALUATIONS * _batches(scenario, c, rows)
    batches = batches + (scenario.evaluations - WHOLE_EVALUATIONS) * _batches(scenario, c, sampled)
    return cast(Floats, forward_seconds(scenario, c) * batches)


def _batches(scenario: Scenario, c: Columns, rows: int) -> Floats:
    return np.ceil(rows / rows_per_sequence(scenario) / (c.micro_batch * c.data_parallel))


def _final(scenario: Scenario, c: Columns) -> Floats:
    ledger = disk(scenario, c)
    return (ledger["final model"] + ledger["adapter"]) / DISK_BYTES_PER_SECOND
