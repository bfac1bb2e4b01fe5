"""When all shards are there: which rows are trained on and which are held out, which share a pack, and the report."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from axoc_runtime.errors import EXIT_DATA, RuntimeFailure
from axoc_runtime.files import write_json
from axoc_runtime.ingest.split import held_out_keys, weighted
from axoc_runtime.job import Job
from axoc_runtime.objectives.registry import objective_of
from axoc_runtime.preparation import shards
from axoc_runtime.preparation.lengths import summary
from axoc_runtime.preparation.packing import FEW_PACKS, packs
from axoc_runtime.preparation.rows import ArrayRows, Packs
from axoc_runtime.preparation.work import Tally

REPORT: Final = "report.json"
"""Written last: a folder that has it is whole."""
LENGTHS: Final = "lengths.json"
TRAIN: Final = "train"
HELD_OUT: Final = "held_out"


def is_whole(folder: Path) -> bool:
    return (folder / REPORT).is_file()


def read_report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    return report


def make_whole(job: Job, folder: Path, count: int, tallies: list[Tally], findings: Any) -> None:
    """Of so many shards; ``findings``: how many of each kind, for the report. Raises RuntimeFailure where nothing is left to train on."""
    paths = [shards.path_of(folder, n) for n in range(count)]
    edges = np.concatenate([[0], *([shards.batch_of(p).num_rows] for p in paths)]).cumsum()
    lengths = shards.numbers(paths, shards.LENGTH)
    train, held_out = split(job, shards.numbers(paths, shards.KEY), _rows_by_dataset(paths, len(job.datasets)))
    if not len(train):
        raise RuntimeFailure("all rows are held out", EXIT_DATA, "lower dataset.validation_split")
    report: dict[str, Any] = {
        "datasets": [{"path": d.path} | asdict(t) for d, t in zip(job.datasets, tallies, strict=True)],
        "shard_edges": edges.tolist(),
        "train_rows": len(train),
        "held_out_rows": len(held_out),
        "findings": findings,
    }
    for name, chosen in ((TRAIN, train), (HELD_OUT, held_out)):
        report |= _keep(job, folder, name, chosen, lengths)
    write_json(folder / LENGTHS, summary(lengths))
    write_json(folder / REPORT, report)


def is_packed(job: Job) -> bool:
    """Raises RuntimeFailure where the objective's rows cannot be packed."""
    packed = any(d.packing for d in job.datasets)
    objective = objective_of(job)
    if packed and not objective.as_arrays:
        message = f"objective {objective.name} looks at each row by itself: its rows cannot be packed"
        raise RuntimeFailure(message, EXIT_DATA, "set dataset.packing: false and plan again")
    return packed


def capacity_of(job: Job) -> int:
    """Tokens of a pack."""
    return max(d.max_seq_length for d in job.datasets)


def _keep(job: Job, folder: Path, name: str, chosen: Any, lengths: Any) -> dict[str, Any]:
    """Numbers of the rows, pack by pack where they are packed."""
    if not is_packed(job):
        _save(folder / f"{name}.npy", chosen)
        return {}
    order, edges = packs(lengths[chosen], capacity_of(job))
    _save(folder / f"{name}.npy", chosen[order])
    _save(folder / f"{name}_packs.npy", edges)
    count = len(edges) - 1
    fill = int(lengths[chosen].sum()) / (count * capacity_of(job)) if count else 0.0
    return {f"{name}_packs": count, f"{name}_fill": fill}


def _save(path: Path, values: Any) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.npy")
    np.save(beside, np.asarray(values, np.int64))
    beside.replace(path)


def _rows_by_dataset(paths: list[Path], count: int) -> list[int]:
    rows = [0] * count
    for path in paths:
        rows[shards.told_of(path)["dataset"]] += shards.batch_of(path).num_rows
    return rows


def split(job: Job, keys: Any, rows: list[int]) -> tuple[Any, Any]:
    """Numbers of the rows to train on and of those held out. A row held out by one dataset is not trained on through
    another that has it too. ``rows``: of each dataset, in order."""
    ends = np.cumsum([0, *rows])
    slices = [slice(a, b) for a, b in pairwise(ends.tolist())]
    back: dict[int, Any] = {}
    for dataset, part in zip(job.datasets, slices, strict=True):
        held = held_out_keys(keys[part], dataset.validation_split)
        back[dataset.split_seed] = np.union1d(back.get(dataset.split_seed, held), held)
    train, held_out = [], []
    for dataset, part in zip(job.datasets, slices, strict=True):
        inside = np.isin(keys[part], back[dataset.split_seed])
        held_out.append(np.flatnonzero(inside) + part.start)
        train.append(weighted(np.flatnonzero(~inside), keys[part], dataset.weight) + part.start)
    return np.concatenate(train), np.concatenate(held_out)


def read(job: Job, folder: Path, name: str, *, packed: bool) -> Any:
    """Rows, or packs of them, as the objective's trainer takes them; None where there are none."""
    report, objective = read_report(folder), objective_of(job)
    chosen = np.load(folder / f"{name}.npy", mmap_mode="r")
    paths = [shards.path_of(folder, n) for n in range(len(report["shard_edges"]) - 1)]
    if not len(chosen):
        return None
    if not objective.as_arrays:
        return _dataset(paths).select(chosen)
    rows = ArrayRows(paths, report["shard_edges"], list(objective.columns), chosen)
    if not packed:
        return rows
    edges = np.load(folder / f"{name}_packs.npy", mmap_mode="r")
    return Packs(rows, edges[:-1], edges[1:])


def _dataset(paths: list[Path]) -> Any:
    from datasets import Dataset, concatenate_datasets

    parts = [Dataset.from_file(str(p)) for p in paths if shards.batch_of(p).num_rows]
    return concatenate_datasets(parts).remove_columns([shards.KEY])


def few_packs(report: dict[str, Any]) -> list[str]:
    """Splits that packing leaves too little of to measure by."""
    return [n for n in (TRAIN, HELD_OUT) if 0 < report.get(f"{n}_packs", FEW_PACKS) < FEW_PACKS]
