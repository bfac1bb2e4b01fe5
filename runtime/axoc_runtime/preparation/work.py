"""Records to a shard. Any process may do it: it looks at nothing but the unit it is given, the job and the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Record, Schema
from axoc_runtime.ingest.checks.facts import Fact, fact_of
from axoc_runtime.ingest.checks.finding import LEFT_OUT, Finding, of_error, of_row
from axoc_runtime.ingest.examine import Examined, Wanted, examine
from axoc_runtime.ingest.gather import Gathered, chosen_schema
from axoc_runtime.ingest.sources import records
from axoc_runtime.job import DatasetJob, Job
from axoc_runtime.objectives.base import Row
from axoc_runtime.objectives.registry import objective_of
from axoc_runtime.preparation.facts import facts_of, write_facts
from axoc_runtime.preparation.shards import path_of, write_shard

UNIT_RECORDS: Final = 2048
"""Of a shard. What is in work at once is a few of them for each process, however large the data are."""
PICTURED_RECORDS: Final = 64
"""The same of rows about images, which may hold some megabytes each."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    number: int
    """Of the shard."""
    dataset: int
    schema: Schema | None
    """None where no record of the dataset could be read."""
    records: tuple[Record, ...]


@dataclass(kw_only=True)
class Tally:
    """What happened to records, and what the rows made of them hold."""

    rows: int = 0
    """Records read: rows of the data."""
    used: int = 0
    """Of those."""
    kept: int = 0
    """Rows made of them: one of each, or as many as a split leaves."""
    tokens: int = 0
    trained_tokens: int = 0
    longest: int = 0
    highest_id: int = 0
    """Of the tokens: it must be a row of the model's embedding."""
    cut: int = 0
    """Records that were too long, of those used: one that is split counts once, however many rows it makes."""
    without_answer: int = 0
    untrained_turns: int = 0

    def count(self, rows: Sequence[Row]) -> list[Row]:
        """Those of one record that something is learned from."""
        kept = [row for row in rows if row.trained_tokens > 0]
        self.untrained_turns += sum(row.untrained_turns for row in rows)
        self.without_answer += not kept
        self.used += bool(kept)
        self.cut += bool(kept) and any(row.cut for row in rows)
        self.kept += len(kept)
        self.tokens += sum(row.tokens for row in kept)
        self.trained_tokens += sum(row.trained_tokens for row in kept)
        self.longest = max([self.longest, *(row.length for row in kept)])
        self.highest_id = max([self.highest_id, *(row.highest_id for row in kept)])
        return kept

    def add(self, other: Tally) -> None:
        for name, value in asdict(other).items():
            mine = getattr(self, name)
            setattr(self, name, max(mine, value) if name in ("longest", "highest_id") else mine + value)


@dataclass(kw_only=True)
class Made:
    """Rows of a unit, and what is to be told of its records."""

    tally: Tally = field(default_factory=Tally)
    rows: list[Row] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    """Of records that are used all the same."""
    facts: list[tuple[Fact, bool, int]] = field(default_factory=list)
    """Of each record that is used: what it is held against all others by, whether it was cut, its untrained turns."""
    unused: list[tuple[Record, tuple[Finding, ...]]] = field(default_factory=list)


def units(job: Job) -> Iterator[Unit]:
    """All records of the job, in order and each dataset for itself: the same units every time."""
    number, most = 0, PICTURED_RECORDS if job.model.vision else UNIT_RECORDS
    for index, dataset in enumerate(job.datasets):
        source = Gathered(records(job, dataset), chosen_schema(dataset), objective_of(job).accepts)
        while taken := tuple(islice(source, most)):
            yield Unit(number=number, dataset=index, schema=source.schema, records=taken)
            number += 1


def write_unit(job: Job, tokenizer: Any, folder: Path, unit: Unit) -> int:
    """Leaves the unit's shard; the number of its records."""
    made = make(job, job.datasets[unit.dataset], tokenizer, unit)
    keep = job.datasets[unit.dataset].on_bad_row == "quarantine"
    told = {
        "dataset": unit.dataset,
        "tally": asdict(made.tally),
        "findings": [asdict(f) for f in made.findings],
        "unused": [{"record": _plain(r, keep), "findings": [asdict(f) for f in fs]} for r, fs in made.unused],
    }
    write_facts(facts_of(folder, unit.number), made.facts)
    write_shard(path_of(folder, unit.number), objective_of(job).columns, made.rows, made.keys, told)
    return len(unit.records)


def make(job: Job, dataset: DatasetJob, tokenizer: Any, unit: Unit) -> Made:
    objective, made = objective_of(job), Made(tally=Tally(rows=len(unit.records)))
    wanted = Wanted(objective=objective.name, accepts=objective.accepts, wants=objective.wants)
    folder = job.resolve(dataset.path or "").parent
    examined = [_examined(record, unit.schema, dataset, wanted, folder) for record in unit.records]
    usable = [e.example for e in examined if e.example is not None]
    rows = iter(objective.rows_of(job, dataset, tokenizer, usable))
    for record, found in zip(unit.records, examined, strict=True):
        _take(made, record, found, None if found.example is None else next(rows), dataset)
    return made


def _examined(record: Record, schema: Schema | None, dataset: DatasetJob, wanted: Wanted, folder: Path) -> Examined:
    if schema is not None:
        return examine(record, schema, dataset, wanted, folder)
    problem = record.problem or BadRow("is empty", check="empty")
    return Examined(example=None, findings=(of_error(problem, record),))


def _take(made: Made, record: Record, found: Examined, rows: list[Row] | BadRow | None, dataset: DatasetJob) -> None:
    """Every record is used, or listed with the reason."""
    if rows is None:
        made.unused.append((record, found.findings))
        return
    if isinstance(rows, BadRow):
        made.unused.append((record, (*found.findings, of_error(rows, record))))
        return
    kept = made.tally.count(rows)
    if not kept:
        message = f"has no token to train on within {dataset.max_seq_length:,} tokens"
        fix = "raise dataset.max_seq_length, or shorten what comes before the answer"
        made.unused.append((record, (*found.findings, of_row(LEFT_OUT, "no-answer", record, message, fix=fix))))
        return
    assert found.example is not None
    fact = fact_of(record, found.example, dataset.split_seed)
    made.rows += kept
    made.keys += [fact.key] * len(kept)
    made.facts.append((fact, any(row.cut for row in rows), sum(row.untrained_turns for row in rows)))
    made.findings += found.findings


def _plain(record: Record, keep: bool) -> dict[str, Any]:
    """As JSON: its content only where it is to be kept."""
    problem = None if record.problem is None else str(record.problem)
    told = {"place": record.place, "file": record.file, "number": record.number, "offset": record.offset}
    content = {"row": json.loads(json.dumps(record.row, default=str)), "raw": record.raw} if keep else {}
    return told | content | {"problem": problem}


def record_of(plain: dict[str, Any]) -> Record:
    """Of `_plain`'s."""
    problem = None if plain["problem"] is None else BadRow(plain["problem"])
    return Record(**{"row": {}, **plain, "problem": problem})
