"""Runs that are ended by their hardware: how often to save, and what failures take.

The interval between checkpoints that loses least is that of Young (1974), sqrt(2 x save x mean time between failures), with
Daly's terms of higher order (2006, https://doi.org/10.1016/j.future.2004.11.016). A failure loses half an interval on average,
and the time to start again. Failures come independently, as often as facts/failures.py says of so many accelerators.
"""

from __future__ import annotations

from typing import Final, cast

import numpy as np

from axoc.cost.columns import Columns, Floats
from axoc.cost.disk import checkpoint_bytes
from axoc.cost.scenario import Scenario
from axoc.facts.failures import failure_rate

SECONDS_PER_DAY: Final = 86_400.0
NOTICED_SECONDS: Final = 60.0
"""Until the ranks that are left have named the one that is gone and ended (docs/failures.md)."""
DISK_BYTES_PER_SECOND: Final = 2e9
"""Of one node, reading or writing large files. An assumption: one data-centre NVMe drive (datasheets: 2 to 4 GB/s written)."""
PROCESS_SECONDS: Final = {"cpu": 15.0, "gpu": 30.0}
"""Imports of torch and transformers and, on a GPU, context and communicators, once a launch. An assumption."""
LEAST_PROGRESS: Final = 0.05
USUAL_SAVES: Final = 4
"""Of a run of known length."""


def save_seconds(scenario: Scenario, c: Columns) -> Floats:
    """The Trainer waits while a checkpoint is written. Sharded states are written by the node that holds them, all else by
    the first. The inventory's own rate of a node, where checkpoints were timed."""
    nodes = np.where(c.deepspeed | c.uses("fsdp"), float(scenario.cluster.nodes), 1.0)
    rate = scenario.cluster.storage_bytes_per_second or DISK_BYTES_PER_SECOND
    return cast(Floats, checkpoint_bytes(scenario, c) / (rate * nodes))


def interval_seconds(scenario: Scenario, c: Columns) -> Floats:
    """Of training between two checkpoints; infinite where nothing fails."""
    per_day, save = failure_rate(scenario.cluster).per_day, save_seconds(scenario, c)
    if per_day <= 0:
        return np.full(len(c), np.inf)
    between = SECONDS_PER_DAY / per_day
    ratio = save / (2.0 * between)
    daly = np.sqrt(2.0 * save * between) * (1.0 + np.sqrt(ratio) / 3.0 + ratio / 9.0) - save
    return cast(Floats, np.where(ratio < 1, np.maximum(daly, save), between))


def save_steps(scenario: Scenario, c: Columns, step_seconds: Floats) -> Floats:
    """Steps between checkpoints: as set; else a quarter of the run, or fewer where failures ask for it."""
    assert scenario.steps is not None
    if scenario.save_steps is not None:
        return np.full(len(c), float(scenario.save_steps))
    usual = float(max(1, scenario.steps // USUAL_SAVES))
    if not scenario.saves_by_failures:
        return np.full(len(c), usual)
    return cast(Floats, np.clip(np.floor(interval_seconds(scenario, c) / step_seconds), 1.0, usual))


def saves(scenario: Scenario, c: Columns, step_seconds: Floats) -> Floats:
    """Checkpoints of the whole run."""
    return np.ceil(float(scenario.steps or 0) / save_steps(scenario, c, step_seconds))


def loss_seconds(scenario: Scenario, c: Columns, step_seconds: Floats) -> Floats:
    """Of one failure: half an interval is done again, after a new start."""
    return 0.5 * save_steps(scenario, c, step_seconds) * step_seconds + restart_seconds(scenario, c)


def expected_seconds(busy: Floats, each: Floats, failures_per_day: float) -> Floats:
    """Lost of a run that is ``busy`` so long, by failures that lose ``each``. What is done again may fail again; a run that
    fails faster than it gets on is given twenty times its length."""
    share = failures_per_day / SECONDS_PER_DAY * each
    return cast(Floats, busy * share / np.maximum(1.0 - share, LEAST_PROGRESS))


def restart_seconds(scenario: Scenario, c: Columns) -> Floats:
    """On nodes that are there: the failure is noticed, processes start and read the checkpoint."""
    kind = "cpu" if scenario.on_cpu else "gpu"
    return NOTICED_SECONDS + PROCESS_SECONDS[kind] + save_seconds(scenario, c)
