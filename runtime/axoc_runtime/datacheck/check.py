"""`check`: all rows of all datasets, read, examined and tokenized, and nothing made of them but a report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, cast

from axoc_runtime.datacheck.job import DataJob
from axoc_runtime.datacheck.shown import show
from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.ingest.base import BadRow, Example, Pictured, Record, Schema
from axoc_runtime.ingest.checks.facts import fact_of
from axoc_runtime.ingest.checks.finding import ERROR, LEFT_OUT, Finding, of_error, of_row
from axoc_runtime.ingest.checks.ledger import Ledger
from axoc_runtime.ingest.checks.looked_up import looked_up
from axoc_runtime.ingest.checks.whole import Whole, template_findings
from axoc_runtime.ingest.examine import Wanted, examine
from axoc_runtime.ingest.gather import Gathered, chosen_schema
from axoc_runtime.ingest.sources import parts, records_of
from axoc_runtime.job import DatasetJob, Job
from axoc_runtime.objectives.registry import objective_of
from axoc_runtime.progress import counted

BATCH_ROWS: Final = 512
REPORT: Final = "data-check.csv"


@dataclass
class Account:
    """Of one dataset: every row that is read is used or listed."""

    path: str
    rows: int = 0
    used: int = 0
    made: int = 0
    """Rows made of those used: more where they are split; 0 without a tokenizer."""
    listed: int = 0
    files_broken: int = 0
    longest: int = 0
    cut: int = 0
    """Of those used, how many conversations are longer than ``max_seq_length``; plain text is only split."""
    notes: list[str] = field(default_factory=list)


class Check:
    def __init__(self, job: DataJob, tokenizer: Any, ledger: Ledger) -> None:
        self.job, self.tokenizer, self.ledger = job, tokenizer, ledger
        self.objective = objective_of(cast(Job, job))
        wants = self.objective.wants
        self.wanted = Wanted(objective=self.objective.name, accepts=self.objective.accepts, wants=wants)
        self.whole = Whole(job.datasets, self.objective.name)
        self.accounts = [Account(path=d.path or "") for d in job.datasets]

    def run(self) -> None:
        for index, dataset in enumerate(self.job.datasets):
            try:
                self._dataset(index, dataset)
            except RuntimeFailure as failure:
                self._broken(index, dataset.path or "", failure)
        self.ledger.add(*(_nothing_used(a) for a in self.accounts if not a.used and not a.files_broken))
        self.ledger.add(*looked_up(self.job, self.job.datasets, self.whole.findings()))

    def _dataset(self, index: int, dataset: DatasetJob) -> None:
        """Raises RuntimeFailure where its rows are of no format."""
        read = counted(self._records(index, dataset), f"checking {dataset.path}")
        source = Gathered(read, chosen_schema(dataset), (*self.objective.accepts, Pictured))
        while batch := list(islice(source, BATCH_ROWS)):
            self._batch(index, dataset, source.schema, batch)

    def _records(self, index: int, dataset: DatasetJob) -> Iterator[Record]:
        """A file that cannot be read does not hide what the others hold."""
        try:
            found = parts(self.job, dataset)
        except RuntimeFailure as failure:
            self._broken(index, dataset.path or "", failure)
            return
        for part in found:
            try:
                yield from records_of(part)
            except RuntimeFailure as failure:
                self._broken(index, part[1].written, failure)

    def _broken(self, index: int, file: str, failure: RuntimeFailure) -> None:
        self.accounts[index].files_broken += 1
        self.ledger.add(
            Finding(
                level=ERROR, check="file", place=file, file=file, row=None, offset=None, column=None,
                message=str(failure).removeprefix(f"{file}: "), sample="", fix=failure.fix or "",
            )
        )  # fmt: skip

    def _batch(self, index: int, dataset: DatasetJob, schema: Schema | None, batch: list[Record]) -> None:
        usable: list[tuple[Record, Example, tuple[Finding, ...]]] = []
        self.accounts[index].rows += len(batch)
        folder = self.job.resolve(dataset.path or "").parent
        for record in batch:
            if schema is None:
                error = record.problem or BadRow("is empty", check="empty")
                self._unused(index, record, (of_error(error, record),))
                continue
            found = examine(record, schema, dataset, self.wanted, folder)
            if found.example is None:
                self._unused(index, record, found.findings)
            else:
                usable.append((record, found.example, found.findings))
        self._tokenized(index, dataset, usable)

    def _unused(self, index: int, record: Record, findings: tuple[Finding, ...]) -> None:
        self.accounts[index].listed += 1
        self.ledger.unused(record, findings, keep=False)

    def _tokenized(
        self, index: int, dataset: DatasetJob, usable: list[tuple[Record, Example, tuple[Finding, ...]]]
    ) -> None:
        """Without a tokenizer the rows are taken as they are: their lengths are not known."""
        made: Sequence[Any] = [None] * len(usable)
        if self.tokenizer is not None:
            examples = [example for _, example, _ in usable]
            made = self.objective.rows_of(cast(Job, self.job), dataset, self.tokenizer, examples)
        for (record, example, findings), rows in zip(usable, made, strict=True):
            if isinstance(rows, BadRow):
                self._unused(index, record, (*findings, of_error(rows, record)))
                continue
            if rows is not None and not any(row.trained_tokens for row in rows):
                self._unused(index, record, (*findings, _nothing_left(record, dataset)))
                continue
            self._used(index, dataset, record, example, findings, rows or ())

    def _used(
        self,
        index: int,
        dataset: DatasetJob,
        record: Record,
        example: Example,
        findings: tuple[Finding, ...],
        rows: Any,
    ) -> None:
        account = self.accounts[index]
        account.used += 1
        account.made += sum(row.trained_tokens > 0 for row in rows)
        account.longest = max([account.longest, *(row.length for row in rows)])
        self.ledger.add(*findings)
        cut, untrained = any(row.cut for row in rows), sum(row.untrained_turns for row in rows)
        account.cut += cut
        self.whole.see(index, fact_of(record, example, dataset.split_seed), cut=cut, untrained_turns=untrained)


def _nothing_used(account: Account) -> Finding:
    """A run would stop there."""
    message = "no row of it is left to train on" if account.rows else "holds no row"
    return Finding(
        level=ERROR, check="empty", place=account.path, file=account.path, row=None, offset=None, column=None,
        message=message, sample="", fix="look at dataset.path, and at what is listed of its rows",
    )  # fmt: skip


def _nothing_left(record: Record, dataset: DatasetJob) -> Finding:
    message = f"has no token to train on within {dataset.max_seq_length:,} tokens"
    fix = "raise dataset.max_seq_length, or shorten what comes before the answer"
    return of_row(LEFT_OUT, "no-answer", record, message, fix=fix)


def run(job: DataJob, report: Path | None, *, as_json: bool) -> int:
    """The exit code: 1 where a row or a file cannot be used. Shows the findings, and writes them all as CSV."""
    tokenizer, plain, note = _tokenizer(job)
    with Ledger(report or job.output / REPORT) as ledger:
        check = Check(job, tokenizer, ledger)
        check.run()
        if tokenizer is not None:
            ledger.add(*template_findings(tokenizer, job.model.id or "", plain))
    notes = [note] if note else []
    if as_json:
        print(json.dumps(_as_dict(check, ledger, notes), indent=2, ensure_ascii=False))
    else:
        show(check.accounts, ledger, notes)
    return EXIT_INPUTS if ledger.total(ERROR) else 0


def _tokenizer(job: DataJob) -> tuple[Any, bool, str | None]:
    """(tokenizer or None, whether its chat template is the plain one, what to say of it)."""
    from axoc_runtime.models.tokenizer import PLAIN_TEMPLATE, load_tokenizer
    from axoc_runtime.objectives.vision import processor_of

    try:
        found = load_tokenizer(cast(Job, job))
        if job.model.vision:
            processor_of(cast(Job, job), found)
    except RuntimeFailure as failure:
        return None, False, f"lengths and the chat template were not checked: {failure}"
    return found, PLAIN_TEMPLATE in str(found.chat_template), None


def _as_dict(check: Check, ledger: Ledger, notes: list[str]) -> dict[str, Any]:
    datasets = [{k: v for k, v in vars(a).items() if k != "notes"} for a in check.accounts]
    found = ledger.as_dict()
    return {"schema_version": 1, "datasets": datasets, "findings": found, "report": str(ledger.report), "notes": notes}
