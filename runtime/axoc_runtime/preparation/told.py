"""The report of the preparation: what people check before they pay."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from axoc_runtime.job import DatasetJob, Job
from axoc_runtime.preparation import shards, whole
from axoc_runtime.preparation.lengths import padded_share, picture


def say(job: Job, folder: Path) -> None:
    """A line or two a dataset, then how long the rows are and what is padded, then the split."""
    report = whole.read_report(folder)
    for row, dataset in zip(report["datasets"], job.datasets, strict=True):
        made = f" as {row['kept']:,}" if row["kept"] != row["used"] else ""
        told = f"{row['rows']:,} rows read, {row['used']:,} used{made}, {row['tokens']:,} tokens"
        print(f"axoc: {row['path']}: {told} ({row['trained_tokens']:,} trained on), longest {row['longest']:,}")
        if notes := list(_notes(row, dataset)):
            print("axoc:   " + ", ".join(notes))
    say_findings(report["findings"])
    _say_lengths(job, folder, report)
    print(f"axoc: {report['train_rows']:,} rows to train on, {report['held_out_rows']:,} held out", flush=True)


def _notes(row: Mapping[str, Any], dataset: DatasetJob) -> Iterator[str]:
    if row["cut"]:
        done = "split" if dataset.truncation == "split" else "cut"
        yield f"{row['cut']:,} {done} ({row['cut'] / row['used']:.1%} of the rows used)"
    yield from (f"{row[k]:,} {k.replace('_', ' ')}" for k in ("without_answer", "untrained_turns") if row[k])


def say_findings(findings: Mapping[str, Mapping[str, int]]) -> None:
    """A line a level, of what is in the report."""
    for level, kinds in findings.items():
        if kinds:
            told = ", ".join(f"{count:,} {check}" for check, count in kinds.items())
            print(f"axoc: {level}: {told} (data-check.csv in the output folder)", flush=True)


def _say_lengths(job: Job, folder: Path, report: dict[str, Any]) -> None:
    found = json.loads((folder / whole.LENGTHS).read_text(encoding="utf-8"))
    at = found["quantiles"]
    middle = f"half are up to {at['p50']:,}, 90% up to {at['p90']:,}, 99% up to {at['p99']:,}"
    print(f"axoc: tokens a row |{picture(found)}| 1 to {found['max']:,}: {middle}")
    if whole.is_packed(job):
        share = 1 - report["train_fill"]
        print(
            f"axoc: {report['train_packs']:,} packs of {whole.capacity_of(job):,} tokens, {share:.1%} of them padding"
        )
        for name in whole.few_packs(report):
            what = "train on" if name == whole.TRAIN else "hold out"
            print(f"axoc:   only {report[f'{name}_packs']:,} packs to {what}: batches count packs, not rows")
        return
    paths = [shards.path_of(folder, n) for n in range(len(report["shard_edges"]) - 1)]
    lengths = shards.numbers(paths, shards.LENGTH)[np.load(folder / f"{whole.TRAIN}.npy", mmap_mode="r")]
    share = padded_share(lengths, job.training.micro_batch_size)
    print(f"axoc: {share:.1%} of a micro-batch of {job.training.micro_batch_size} will be padding")
