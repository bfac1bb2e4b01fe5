"""Disk of one node, by item: what a launch writes, downloads and installs.

Where nodes share a file system, which resuming over several nodes needs, this is the whole run's.
"""

from __future__ import annotations

import math
from typing import Final, cast

import numpy as np

from axoc.cost import states
from axoc.cost.columns import Columns, Floats
from axoc.cost.scenario import Scenario
from axoc.facts.exports import scratch_bytes_a_parameter

KEPT_CHECKPOINTS: Final = 2
"""The runtime's ``KEPT`` (checkpoint/keep.py). The oldest is deleted only after the newest is complete."""
ENVIRONMENT_BYTES: Final = {"cpu": 1.9e9, "gpu": 7e9}
"""Of requirements.lock when installed. CPU: measured, with the development tools. GPU: an estimate, not yet weighed."""
EXPORT_TOOLS_BYTES: Final = 0.5e9
"""Of what a lock with exports adds when installed; measured."""
TOKEN_BYTES: Final = 8.0
"""Of a prepared token: its id and its label, int32 each (the runtime's preparation/shards.py)."""
PREPARED_ROW_BYTES: Final = 8 + 4 + 8 + 90 + 8
"""Of each prepared row: where its ids and labels begin, its length and its key (shards.py), its facts as JSON (facts.py says
some ninety bytes), and its number in the order (whole.py)."""
RUN_ITEMS: Final = (
    "prepared rows",
    "checkpoints",
    "next checkpoint",
    "checkpoint being uploaded",
    "adapter",
    "final model",
    "exports",
    "exports being made",
)
"""What a run writes into its output folder. The rest lies where caches are, and may be there already."""


def disk(scenario: Scenario, c: Columns) -> dict[str, Floats]:
    """By item, one row a candidate."""
    n = float(scenario.sizes.total)
    low = states.keeps_bf16_module(scenario, c) > 0
    final = np.where(low & scenario.is_full, 2.0, float(scenario.weight_bytes)) * n
    constant = {
        "environment": ENVIRONMENT_BYTES["cpu" if scenario.on_cpu else "gpu"]
        + (EXPORT_TOOLS_BYTES if scenario.exports else 0.0),
        "base model": n * scenario.file_bytes if scenario.downloads else 0.0,
        "prepared rows": prepared_bytes(scenario),
        "adapter": 0.0 if scenario.is_full else 4.0 * scenario.trainable,
        "exports": n * sum(each for _, each in scenario.exports),
        "exports being made": n
        * scratch_bytes_a_parameter(tuple(name for name, _ in scenario.exports), float(scenario.weight_bytes)),
    }
    ledger = {item: np.full(len(c), float(value)) for item, value in constant.items()}
    each, kept = checkpoint_bytes(scenario, c), checkpoints_kept(scenario)
    # the next is written before the oldest is deleted, and both before the result is: of those two, the larger counts
    result = ledger["adapter"] + ledger["exports"] + ledger["exports being made"] + final
    following = np.maximum(0.0, each - result) if saves_more_than(scenario, kept) else np.zeros(len(c))
    sending = each if scenario.uploads and saves_more_than(scenario, kept) else np.zeros(len(c))
    checkpoints = {"checkpoints": kept * each, "next checkpoint": following, "checkpoint being uploaded": sending}
    return ledger | checkpoints | {"final model": final}


def prepared_bytes(scenario: Scenario) -> float:
    """Of rows whose lengths are known; else at most: no row is longer than the limit, and no token stands for less than a byte
    of the data. Nothing where the number of rows is not known, which disk_unknown.py tells, or where they are streamed."""
    if scenario.data_rows is None or scenario.streaming:
        return 0.0
    rows = float(scenario.data_rows)
    if scenario.lengths is not None:
        found = scenario.trained_lengths
        tokens = rows * sum(n * share for n, share in zip(found.tokens, found.shares, strict=True))
    else:
        tokens = min(
            rows * scenario.seq_length, math.inf if scenario.data_bytes is None else float(scenario.data_bytes)
        )
    return tokens * TOKEN_BYTES + rows * PREPARED_ROW_BYTES


def checkpoints_kept(scenario: Scenario) -> int:
    """As many as the runtime keeps, or fewer where the run saves less often."""
    return KEPT_CHECKPOINTS if scenario.saves is None else min(KEPT_CHECKPOINTS, max(1, scenario.saves))


def saves_more_than(scenario: Scenario, kept: int) -> bool:
    return scenario.saves is None or scenario.saves > kept


def checkpoint_bytes(scenario: Scenario, c: Columns) -> Floats:
    """Of one checkpoint. Weights in safetensors and optimizer states; the engines' own files on top.

    ZeRO-1/2: the module once more (mp_rank_00_model_states.pt), and each rank's fp32 masters with its states; accelerate's
    clone of the module has parted a tied head from the embedding, so both are in its safetensors. ZeRO-3: the
    masters and states, its module's files are empty. FSDP2: sharded weights, frozen ones too and a tied head as if it were
    not, and states. Sources: transformers' Trainer._save_checkpoint, DeepSpeed's engine.save_checkpoint, accelerate's
    save_fsdp_model.
    """
    trained = float(scenario.trainable)
    module = np.where(states.keeps_bf16_module(scenario, c) > 0, 2.0, float(scenario.trainable_bytes))
    plain = trained * (scenario.trainable_bytes + scenario.optimizer_bytes)
    masters = 4.0 + scenario.optimizer_bytes_of_masters
    tied = float(scenario.sizes.vocabulary_matrix if scenario.sizes.lm_head == 0 else 0)
    tied_trained = tied if scenario.is_full else 0.0
    frozen = 0.0 if scenario.is_full else float(scenario.sizes.total) * scenario.weight_bytes
    kinds = {
        "zero12": trained * (2.0 * module + masters) + tied_trained * module,
        "zero3": trained * (module + masters),
        "fsdp": np.full(len(c), plain + frozen + tied * scenario.weight_bytes),
    }
    used = [c.uses("zero1", "zero2"), c.uses("zero3"), c.uses("fsdp")]
    return cast(Floats, np.select(used, list(kinds.values()), plain))
