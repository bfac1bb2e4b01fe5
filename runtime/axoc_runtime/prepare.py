"""`prepare`: one command, before any process group exists: rows to tokens, split, packed, checked, written once.

Ranks that each tokenized would wait for one another past NCCL's time-out (axolotl issue 2684).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from axoc_runtime.errors import EXIT_DATA, EXIT_INPUTS, RuntimeFailure
from axoc_runtime.files import locked
from axoc_runtime.ingest.checks.finding import ERROR, Finding
from axoc_runtime.ingest.checks.ledger import Ledger
from axoc_runtime.ingest.checks.looked_up import looked_up
from axoc_runtime.ingest.checks.whole import Whole
from axoc_runtime.job import Job
from axoc_runtime.models.tokenizer import load_tokenizer
from axoc_runtime.models.without_torch import import_transformers
from axoc_runtime.objectives.vision import processor_of
from axoc_runtime.preparation import facts, shards, whole
from axoc_runtime.preparation.digest import digest_of
from axoc_runtime.preparation.pool import over_processes, processes
from axoc_runtime.preparation.stream import WINDOW_RECORDS, Windows, is_streamed, listed
from axoc_runtime.preparation.told import say, say_findings
from axoc_runtime.preparation.work import Tally, Unit, record_of, units, write_unit
from axoc_runtime.progress import summed

SHOWN_PROBLEMS: Final = 20
FINDINGS: Final = "data-check.csv"
QUARANTINE: Final = "quarantine.jsonl"
"""In the output folder."""


def run(job: Job, *, alone: bool = False) -> None:
    """Leaves the prepared rows under ``<output_dir>/.prepared``; does nothing where they are there already, and goes on
    where it was stopped. Of several processes of a machine one does the work, and the others wait for it. Of rows that are
    streamed only the first window is made, to see that they can be. ``alone``: this process will do nothing else."""
    if is_streamed(job):
        _look_into_stream(job, _tokenizer(job, alone))
        return
    with locked(job.output / ".prepared" / ".lock"):
        folder = prepared_folder(job)
        if not whole.is_whole(folder):
            whole.is_packed(job)  # what cannot be packed is told before anything is made of it
            _prepare(job, _tokenizer(job, alone), folder)
    say(job, folder)


def _tokenizer(job: Job, alone: bool) -> Any:
    if alone:
        import_transformers(job)
    tokenizer = load_tokenizer(job)
    if job.model.vision:
        processor_of(job, tokenizer)  # before there are processes: one that cannot be loaded is told once
    return tokenizer


def load_prepared(job: Job) -> tuple[Any, Any]:
    """(rows, held-out rows or None), as `prepare` left them; packed rows pack by pack, but one by one."""
    return _read(job, packed=False)


def load_batches(job: Job) -> tuple[Any, Any]:
    """The same as they are trained on: packs where the job packs."""
    return _read(job, packed=whole.is_packed(job))


def prepared_folder(job: Job) -> Path:
    return job.output / ".prepared" / digest_of(job)[:16]


def _look_into_stream(job: Job, tokenizer: Any) -> None:
    windows = Windows(job, tokenizer, rank=0, ranks=1)
    _, found = next(windows.after(0))
    with Ledger(job.output / FINDINGS) as ledger:
        listed(job, windows.made, ledger)
        together = Whole(job.datasets, job.training.objective)
        for index, fact, cut, untrained in ((i, *fact) for i, made in windows.made for fact in made.facts):
            together.see(index, fact, cut=cut, untrained_turns=untrained)
        ledger.add(*looked_up(job, job.datasets, together.findings()))
    rows = [row for item in found for row in item.get("documents", [item])]
    if not rows:
        message = f"the first {WINDOW_RECORDS:,} records have no row with an answer to train on"
        raise RuntimeFailure(message, EXIT_DATA, "look at the rows, or raise dataset.max_seq_length")
    check_vocabulary(job, max(int(row["input_ids"].max()) for row in rows))
    tokens, long = sum(len(row["input_ids"]) for row in rows), sum(made.tally.cut for _, made in windows.made)
    told = f"{len(found):,} packs" if whole.is_packed(job) else f"{len(rows):,} rows"
    told += f" of {tokens:,} tokens" + (f"; {long:,} records were longer than max_seq_length" if long else "")
    print(f"axoc: rows are streamed; the first {WINDOW_RECORDS:,} records make {told}", flush=True)
    say_findings(ledger.as_dict())


def _read(job: Job, *, packed: bool) -> tuple[Any, Any]:
    if is_streamed(job):
        from axoc_runtime.objectives.streamed import Streamed

        return Streamed(job, load_tokenizer(job)), None
    folder = prepared_folder(job)
    if not whole.is_whole(folder):
        fix = "run launch.sh, which prepares before it trains"
        raise RuntimeFailure(f"no prepared data in {folder}", EXIT_DATA, fix)
    train, held_out = (whole.read(job, folder, name, packed=packed) for name in (whole.TRAIN, whole.HELD_OUT))
    return train, held_out


def _prepare(job: Job, tokenizer: Any, folder: Path) -> None:
    """Shards first: those that are there are kept. Then what is to be told of all records, and the report."""
    folder.mkdir(parents=True, exist_ok=True)
    for unfinished in folder.glob(".shard-*"):
        unfinished.unlink()
    missing = _Missing(job, folder)
    summed(over_processes(partial(write_unit, job, tokenizer, folder), missing, processes()), "preparing rows")
    tallies, findings = _accounts(job, folder, missing.units)
    if empty := [d.path or "" for d, t in zip(job.datasets, tallies, strict=True) if not t.kept]:
        message = f"{', '.join(empty)}: no row with an answer to train on is left"
        raise RuntimeFailure(message, EXIT_DATA, "look at the rows, or raise dataset.max_seq_length")
    check_vocabulary(job, max(t.highest_id for t in tallies))
    whole.make_whole(job, folder, missing.units, tallies, findings)


class _Missing:
    """The job's units whose shards are not there yet; ``units`` counts all of them as they pass."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job, self.folder, self.units = job, folder, 0

    def __iter__(self) -> Iterator[Unit]:
        for unit in units(self.job):
            self.units += 1
            if not shards.path_of(self.folder, unit.number).is_file():
                yield unit


def _accounts(job: Job, folder: Path, count: int) -> tuple[list[Tally], Any]:
    """Of each dataset, and how many findings there are of each kind: all of them go into the report.

    Raises RuntimeFailure where there are records that cannot be used, and the spec does not say to go on without them.
    """
    tallies = [Tally() for _ in job.datasets]
    shown: list[str] = []
    failing = 0
    together = Whole(job.datasets, job.training.objective)
    with Ledger(job.output / FINDINGS, job.output / QUARANTINE) as ledger:
        for number in range(count):
            told = shards.told_of(shards.path_of(folder, number))
            for fact, cut, untrained in facts.read_facts(folder, number):
                together.see(told["dataset"], fact, cut=cut, untrained_turns=untrained)
            dataset = job.datasets[told["dataset"]]
            tallies[told["dataset"]].add(Tally(**told["tally"]))
            ledger.add(*(Finding(**f) for f in told["findings"]))
            for unused in told["unused"]:
                findings = tuple(Finding(**f) for f in unused["findings"])
                ledger.unused(record_of(unused["record"]), findings, keep=dataset.on_bad_row == "quarantine")
                errors = [f.text for f in findings if f.level == ERROR] if dataset.on_bad_row == "fail" else []
                failing += bool(errors)
                shown += errors[: SHOWN_PROBLEMS - len(shown)]
        ledger.add(*looked_up(job, job.datasets, together.findings()))
    if failing:
        raise RuntimeFailure(
            _listed(shown, failing), EXIT_DATA, "repair or remove these rows, or set dataset.on_bad_row"
        )
    return tallies, ledger.as_dict()


def _listed(shown: list[str], failing: int) -> str:
    lines = [f"{failing:,} rows cannot be used:", *(f"  {text}" for text in shown)]
    more = failing - len(shown)
    return "\n".join(
        [*lines, f"  and {more:,} more, all of them in {FINDINGS} in the output folder"] if more > 0 else lines
    )


def check_vocabulary(job: Job, highest_id: int) -> None:
    """A token beyond the embedding reads foreign memory on a GPU, and a merge with other weights moves all tokens.

    Where there is no config.json, loading the model will say so.
    """
    from transformers import AutoConfig

    from axoc_runtime.models.source import source_arguments

    try:
        size = AutoConfig.from_pretrained(**source_arguments(job)).get_text_config().vocab_size
    except (OSError, ValueError):
        return
    size = job.model.tokenizer.embedding_rows or size
    if highest_id >= size:
        message = f"the tokenizer of {job.model.id} gives the token {highest_id:,}, and the model's embedding has {size:,} rows"
        raise RuntimeFailure(message, EXIT_INPUTS, "use the tokenizer that the model was trained with")
