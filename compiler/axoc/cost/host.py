"""Host memory of one node, by item and by phase of a launch: prepare to export. What the runtime really does.

Counted is memory that only the process gives back. Weights that are read in the dtype of their files are pages of those
files (safetensors maps them; transformers 5.17's _materialize_copy leaves them where they are), shared by all ranks and
dropped by the kernel when it needs room: they need no memory of their own. docs/host-memory.md has what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from axoc.cost import states
from axoc.cost.columns import Columns, Floats
from axoc.cost.exporting import exporting_bytes
from axoc.cost.offload import copied_while_pinning_bytes, offloaded
from axoc.cost.preparing import preparing_bytes, tokenizer_bytes
from axoc.cost.scenario import Scenario
from axoc.units import MIB

HOST_PHASES: Final = ("prepare", "load", "train", "save", "finish", "export")
CUDA_PROCESS_BYTES: Final = 3.5e9
"""Of one rank before weights: Python, torch, transformers, the CUDA context's host side. An estimate, not yet measured."""
CPU_PROCESS_BYTES: Final = 350 * MIB
"""Of one rank before weights, CPU build of torch: docs/host-memory.md."""
CPU_TRAINER_BYTES: Final = 37 * MIB
"""Of one rank that trains on a CPU, between its imports and its first weight: the model's code and the Trainer's; measured."""
CPU_LIBRARY_BYTES: Final = 130 * MIB
"""Pages of libraries' files that such a rank has resident beside: no plan's need, but part of what it is seen to use."""
LAUNCHER_BYTES: Final = 145 * MIB
"""torchrun's own process, which imports torch: docs/host-memory.md."""
ROW_BYTES: Final = 88
"""Of each row in every rank: its index as a Python integer in the split and in the sampler's order, and in Arrow."""
FILE_BYTES: Final = 50e9
"""Weights are written in files of at most so much, each copied from the device whole (save_pretrained's max_shard_size)."""
BROADCAST_BYTES: Final = 250 * MIB
"""DDP gives every rank the first one's weights, frozen ones too, in flat copies that are closed once they hold so much, two of
them at a time (torch/nn/parallel/distributed.py: broadcast_bucket_size; torch/csrc/distributed/c10d/comm.cpp: max_in_flight)."""

TENSORS: Final = "tensors of the ranks"
HostLedger = dict[str, Floats]


@dataclass(frozen=True, kw_only=True)
class HostColumns:
    """Bytes of the fullest node, one row a candidate."""

    bytes: Floats
    phase: Floats
    """Index into HOST_PHASES of the peak."""
    phases: dict[str, Floats]
    ledgers: dict[str, HostLedger]


def host_memory(scenario: Scenario, c: Columns, peak: Floats, resident: Floats) -> HostColumns:
    """``peak`` and ``resident``: bytes of one rank's device at its peak and between steps, which on a CPU are the host's."""
    ranks = np.minimum(c.world, scenario.cluster.accelerators_per_node).astype(np.float64)
    base = _base(scenario, ranks)
    device = 1.0 if scenario.on_cpu else 0.0
    kept = {item: ranks * v for item, v in offloaded(scenario, c).items()}
    ledgers = {
        "prepare": {"reading and encoding rows": np.full(len(c), preparing_bytes(scenario))},
        "load": base
        | {
            "weights while loading": ranks * copied_at_load_bytes(scenario, c),
            TENSORS: device * ranks * _placed_on_cpu_bytes(scenario, c),
            "copies being broadcast": device * ranks * broadcast_bytes(scenario, c),
        },
        "train": base
        | kept
        | {
            "copied while being pinned": ranks * copied_while_pinning_bytes(scenario, c),
            TENSORS: device * ranks * (peak - _mapped_bytes(scenario, c)),
        },
        "save": base
        | kept
        | {
            TENSORS: device * ranks * (resident - _mapped_bytes(scenario, c)),
            "copies being saved": _saving(scenario, c, ranks),
        },
        "finish": _finish(scenario, c),
        "export": _export(scenario, c),
    }
    phases = {name: cast(Floats, sum(ledger.values(), np.zeros(len(c)))) for name, ledger in ledgers.items()}
    stacked = np.stack([phases[name] for name in HOST_PHASES])
    return HostColumns(
        bytes=stacked.max(axis=0), phase=cast(Floats, stacked.argmax(axis=0)), phases=phases, ledgers=ledgers
    )


def add_to_tensors(host: HostColumns, row: int, num_bytes: float) -> None:
    """Of all ranks, while they train: found by a replay."""
    host.ledgers["train"][TENSORS][row] += num_bytes
    host.phases["train"][row] += num_bytes
    totals = [float(host.phases[name][row]) for name in HOST_PHASES]
    host.bytes[row], host.phase[row] = max(totals), totals.index(max(totals))


def _mapped_bytes(scenario: Scenario, c: Columns) -> Floats:
    """Of a CPU rank that trains alone: frozen weights which loading did not copy stay pages of their files. Trained ones become
    memory when they are first written."""
    alone = scenario.on_cpu and not scenario.is_full and not scenario.quantized
    resident = np.maximum(0.0, states.weights(scenario, c) - states.trained_bytes(scenario))
    mapped = np.maximum(0.0, resident - copied_at_load_bytes(scenario, c))
    return cast(Floats, np.where(c.uses("single") & alone, mapped, 0.0))


def _base(scenario: Scenario, ranks: Floats) -> HostLedger:
    process = CPU_PROCESS_BYTES + CPU_TRAINER_BYTES if scenario.on_cpu else CUDA_PROCESS_BYTES
    rows = ROW_BYTES * float(scenario.data_rows or 0)
    launcher = np.where(ranks > 1, float(LAUNCHER_BYTES), 0.0)  # launch.sh starts one process itself
    return {"processes": ranks * process + launcher, "order of the rows": ranks * rows}


def copied_at_load_bytes(scenario: Scenario, c: Columns) -> Floats:
    """Of one rank: weights that from_pretrained converts, fuses or casts, and so copies. Every rank does it at once."""
    n = float(scenario.sizes.total)
    differs = scenario.model.file_dtype != scenario.dtype
    experts = float(scenario.sizes.experts)  # stacked into one tensor a block
    copied = n if differs else experts
    file_bytes = float(scenario.file_bytes)
    # zero.Init: rank 0 copies file by file straight into the partitions; all ranks stack experts in the files' dtype
    zero3 = experts * file_bytes
    plain = np.full(len(c), copied * scenario.weight_bytes)
    if not differs and scenario.weight_bytes > 2:  # DeepSpeed casts the module to bf16 where it still is, on the host
        plain = np.where(states.keeps_bf16_module(scenario, c) > 0, 2.0 * n, plain)
    if scenario.quantized:  # each tensor goes to the device as it is read, and is quantized there
        plain = np.zeros(len(c))
    return np.where(c.uses("zero3"), zero3, plain)


def _placed_on_cpu_bytes(scenario: Scenario, c: Columns) -> Floats:
    """Of one CPU rank, before it trains and beyond what loading copied; other weights stay mapped until they are written.

    zero.Init fills partitions by copying. accelerate calls a CPU rank's device cpu:0, and torch copies to it what is on cpu.
    """
    resident = states.weights(scenario, c)
    moved = np.maximum(0.0, resident - copied_at_load_bytes(scenario, c))
    return np.select([c.uses("zero3"), c.uses("ddp")], [resident, moved], 0.0)


def broadcast_bytes(scenario: Scenario, c: Columns) -> Floats:
    """Of one CPU rank, when DDP wraps its model. The vocabulary's matrix fills a copy alone where it is larger than one."""
    weights = states.weights(scenario, c)
    matrix = float(scenario.sizes.vocabulary_matrix * scenario.weight_bytes)
    two = max(matrix, float(BROADCAST_BYTES)) + BROADCAST_BYTES
    return cast(Floats, np.where(c.uses("ddp"), np.minimum(weights, two), 0.0))


def _saving(scenario: Scenario, c: Columns, ranks: Floats) -> Floats:
    """The larger of the whole weights put together and of each rank's share of the states.

    ZeRO-1/2: accelerate's get_state_dict clones the module on every rank, frozen weights too. ZeRO-3 gathers what is
    trained on rank 0. FSDP2 gathers all at the end, and copies a rank's shard off the device at every checkpoint.
    One rank alone: each file's tensors are copied off the device, then written. On a CPU they are written in place.
    """
    n, trained = float(scenario.sizes.total), float(scenario.trainable)
    low = np.where(states.keeps_bf16_module(scenario, c) > 0, 2.0, float(scenario.weight_bytes))
    linear, rest = states.base_bytes(scenario)
    tied = scenario.sizes.vocabulary_matrix * low if scenario.sizes.lm_head == 0 else 0.0  # the clone is of both names
    module = (linear + rest) * low / scenario.weight_bytes + tied + (0.0 if scenario.is_full else trained * 4.0)
    one = float(scenario.weight_bytes) * n if scenario.is_full else 4.0 * trained
    one_file = 0.0 if scenario.on_cpu else min(one, FILE_BYTES)
    adapter_low = np.where(states.keeps_bf16_module(scenario, c) > 0, 2.0, 4.0)
    gathered = low * n if scenario.is_full else adapter_low * trained
    whole = np.select(
        [c.uses("zero1", "zero2"), c.uses("zero3"), c.uses("fsdp")],
        [ranks * module, gathered, np.full(len(c), scenario.weight_bytes * n + (0.0 if scenario.is_full else one))],
        one_file,
    )
    shard = trained / c.optimizer_shards * np.where(c.deepspeed, 4.0, scenario.optimizer_bytes)
    on_device = ~c.offloads_optimizer & (not scenario.on_cpu)  # what is on the host is written where it is
    states_copied = np.where((c.deepspeed | c.uses("fsdp")) & on_device, ranks * shard, 0.0)
    return cast(Floats, np.maximum(whole, states_copied))


def _finish(scenario: Scenario, c: Columns) -> HostLedger:
    """One process, on the host: an adapter is merged into the exact weights, in the dtype of the spec."""
    process = CPU_PROCESS_BYTES if scenario.on_cpu else CUDA_PROCESS_BYTES
    merged = 0.0 if scenario.is_full else scenario.weight_bytes * float(scenario.sizes.total) + 4.0 * scenario.trainable
    return {"processes": np.full(len(c), float(process)), "model being merged": np.full(len(c), merged)}


def _export(scenario: Scenario, c: Columns) -> HostLedger:
    """The same process, once the adapter is merged."""
    if not scenario.exports:
        return {}
    process = CPU_PROCESS_BYTES if scenario.on_cpu else CUDA_PROCESS_BYTES
    each = {
        "processes": float(process) + tokenizer_bytes(scenario),
        "formats and what checks them": exporting_bytes(scenario),
    }
    return {item: np.full(len(c), value) for item, value in each.items()}
