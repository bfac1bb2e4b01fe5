"""`prepare`: one process, before any process group exists: rows to tokens, split, checked, written once.

Ranks that each tokenized would wait for one another past NCCL's time-out (axolotl issue 2684).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from axoc_runtime import __version__
from axoc_runtime.errors import EXIT_DATA, EXIT_INPUTS, RuntimeFailure
from axoc_runtime.files import whole_folder
from axoc_runtime.ingest import store
from axoc_runtime.ingest.base import BadRow, Record, Schema
from axoc_runtime.ingest.registry import named, schema_for
from axoc_runtime.ingest.sources import fingerprints, records
from axoc_runtime.ingest.split import held_out_keys, row_key, weighted
from axoc_runtime.job import DatasetJob, Job
from axoc_runtime.objectives.base import Row
from axoc_runtime.objectives.registry import objective_of
from axoc_runtime.progress import counted

SHOWN_PROBLEMS: Final = 20
PLAIN_TEMPLATE: Final = (
    "{% for m in messages %}{{ m['role'] | capitalize }}: {{ m['content'] }}"
    "{{ eos_token if m['role'] == 'assistant' else '' }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant: {% endif %}"
)
"""For models whose tokenizer brings no chat template. It is saved with the trained model."""


@dataclass
class Tally:
    """What happened to the rows of one dataset."""

    path: str
    rows: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    longest: int = 0
    highest_id: int = 0
    """Of its tokens: it must be a row of the model's embedding."""
    cut: int = 0
    without_answer: int = 0
    untrained_turns: int = 0
    keys: list[int] = field(default_factory=list)


def run(job: Job) -> None:
    """Leaves the prepared rows under ``<output_dir>/.prepared``; does nothing where they are there already."""
    folder = prepared_folder(job)
    if not (folder / store.SPLIT).is_file():
        tokenizer = load_tokenizer(job)
        with whole_folder(folder) as fresh:
            _prepare(job, tokenizer, fresh)
    _say(store.read_report(folder))


def load_prepared(job: Job) -> tuple[Any, Any]:
    """(rows, held-out rows or None), as `prepare` left them."""
    folder = prepared_folder(job)
    if not (folder / store.SPLIT).is_file():
        fix = "run launch.sh, which prepares before it trains"
        raise RuntimeFailure(f"no prepared data in {folder}", EXIT_DATA, fix)
    return store.read_rows(folder)


def load_tokenizer(job: Job) -> Any:
    """The model's own tokenizer; with a plain chat template where it brings none."""
    from transformers import AutoTokenizer

    from axoc_runtime.models.source import source_arguments

    try:
        tokenizer = AutoTokenizer.from_pretrained(**source_arguments(job))
    except (OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        fix = "check model.id: a local folder with the tokenizer's files, or a hub id that this machine can reach"
        raise RuntimeFailure(f"the tokenizer of {job.model.id} cannot be loaded: {first}", EXIT_INPUTS, fix) from error
    if not getattr(tokenizer, "chat_template", None):
        tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


def prepared_folder(job: Job) -> Path:
    """Named by a digest of all that the rows depend on: data, options, tokenizer, and this code's version."""
    depends = {
        "runtime": __version__,
        "objective": job.training.objective,
        "completion": job.training.grpo and job.training.grpo.max_completion_length,
        "datasets": [asdict(d) for d in job.datasets],
        "data": [fingerprints(job, d) for d in job.datasets],
        "tokenizer": _tokenizer_fingerprint(job),
        "plugins": _plugins_fingerprint(job),
    }
    digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
    return job.output / ".prepared" / digest[:16]


def _plugins_fingerprint(job: Job) -> list[str]:
    """Plugins read and convert rows: another version of one may do it otherwise."""
    folder = job.bundle_dir / "plugins"
    files = sorted(p for p in folder.rglob("*.py") if "__pycache__" not in p.parts)
    return [f"{p.relative_to(folder).as_posix()}:{hashlib.sha256(p.read_bytes()).hexdigest()}" for p in files]


def _tokenizer_fingerprint(job: Job) -> list[str]:
    source = Path(job.model_source())
    if source.is_dir():
        files = sorted(p for p in source.iterdir() if p.is_file() and p.suffix in (".json", ".model", ".txt", ".jinja"))
        return [f"{p.name}:{hashlib.sha256(p.read_bytes()).hexdigest()}" for p in files]
    if source.is_file():
        return [f"{source.name}:{source.stat().st_size}"]
    return [f"{job.model.id}@{job.model.revision}"]


def _prepare(job: Job, tokenizer: Any, folder: Path) -> None:
    tallies = [Tally(path=d.path or "") for d in job.datasets]
    problems: list[str] = []
    store.write_rows(folder, objective_of(job).columns, _all_rows(job, tokenizer, tallies, problems))
    if problems:
        raise RuntimeFailure(_listed(problems), EXIT_DATA, "repair or remove these rows")
    if empty := [t.path for t in tallies if not t.keys]:
        message = f"{', '.join(empty)}: no row with an answer to train on is left"
        raise RuntimeFailure(message, EXIT_DATA, "look at the rows, or raise dataset.max_seq_length")
    check_vocabulary(job, max(t.highest_id for t in tallies))
    train, held_out = _split(job, tallies)
    if not train:
        raise RuntimeFailure("all rows are held out", EXIT_DATA, "lower dataset.validation_split")
    store.write_split(folder, train, held_out, _report(tallies, train, held_out))


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
    if highest_id >= size:
        message = f"the tokenizer of {job.model.id} gives the token {highest_id:,}, and the model's embedding has {size:,} rows"
        raise RuntimeFailure(message, EXIT_INPUTS, "use the tokenizer that the model was trained with")


def _all_rows(
    job: Job, tokenizer: Any, tallies: list[Tally], problems: list[str]
) -> Iterator[tuple[Mapping[str, Any], int]]:
    for dataset, tally in zip(job.datasets, tallies, strict=True):
        for key, row in _rows(job, dataset, tokenizer, tally, problems):
            tally.keys.append(key)
            yield row.columns, row.length


def _rows(
    job: Job, dataset: DatasetJob, tokenizer: Any, tally: Tally, problems: list[str]
) -> Iterator[tuple[int, Row]]:
    """Key and tokens of every usable row; what is wrong with the others is added to ``problems``."""
    chosen, objective = named(dataset.type), objective_of(job)
    schema = chosen if isinstance(chosen, Schema) else None
    for record in counted(records(job, dataset), f"preparing {dataset.path}"):
        tally.rows += 1
        if record.problem is not None:
            problems.append(f"{record.place}: {record.problem}")
            continue
        schema = schema or schema_for(_columns(record), record.place, objective.accepts)
        try:
            found = objective.rows(job, dataset, tokenizer, _checked(schema, record, job))
        except BadRow as error:
            problems.append(f"{record.place}: {f'{error.column} ' if error.column else ''}{error}")
            continue
        key = row_key(record.row, dataset.split_seed)
        for row in found:
            if _count(tally, row):
                yield key, row


def _columns(record: Record) -> frozenset[str]:
    return frozenset(str(k) for k, v in record.row.items() if v is not None)


def _checked(schema: Schema, record: Record, job: Job) -> Any:
    missing = [c for c in schema.columns if c not in record.row]
    if missing:
        raise BadRow(f"has no column {' or '.join(missing)}, which {schema.name} needs")
    example, objective = schema.convert(record.row), objective_of(job)
    if not isinstance(example, objective.accepts):
        raise BadRow(f"is in the format {schema.name}: objective {objective.name} needs {objective.wants}")
    return example


def _count(tally: Tally, row: Row) -> bool:
    """Adds a row to the tally. False where nothing is left to train on."""
    tally.cut += row.cut
    tally.untrained_turns += row.untrained_turns
    if row.trained_tokens == 0:
        tally.without_answer += 1
        return False
    tally.tokens += row.tokens
    tally.trained_tokens += row.trained_tokens
    tally.longest = max(tally.longest, row.length)
    tally.highest_id = max(tally.highest_id, row.highest_id)
    return True


def _split(job: Job, tallies: list[Tally]) -> tuple[list[int], list[int]]:
    """Indices into all rows. A row held out by one dataset is not trained on through another that has it too."""
    train: list[int] = []
    held_out: list[int] = []
    offset = 0
    kept_back = frozenset(
        (d.split_seed, k)
        for d, t in zip(job.datasets, tallies, strict=True)
        for k in held_out_keys(t.keys, d.validation_split)
    )
    for dataset, tally in zip(job.datasets, tallies, strict=True):
        inside = [(dataset.split_seed, key) in kept_back for key in tally.keys]
        held_out += [offset + i for i, held in enumerate(inside) if held]
        rest = [i for i, held in enumerate(inside) if not held]
        train += [offset + i for i in weighted(rest, tally.keys, dataset.weight)]
        offset += len(tally.keys)
    return train, held_out


def _report(tallies: list[Tally], train: list[int], held_out: list[int]) -> dict[str, Any]:
    rows = [{k: v for k, v in asdict(t).items() if k != "keys"} | {"kept": len(t.keys)} for t in tallies]
    return {"datasets": rows, "train_rows": len(train), "held_out_rows": len(held_out)}


def _say(report: dict[str, Any]) -> None:
    """A line a dataset, then the split: what people check before they pay."""
    for row in report["datasets"]:
        told = f"{row['rows']:,} rows read, {row['kept']:,} kept, {row['tokens']:,} tokens"
        print(f"axoc: {row['path']}: {told} ({row['trained_tokens']:,} trained on), longest {row['longest']:,}")
        notes = Counter({k: row[k] for k in ("cut", "without_answer", "untrained_turns")})
        if any(notes.values()):
            print("axoc:   " + ", ".join(f"{n:,} {k.replace('_', ' ')}" for k, n in notes.items() if n))
    print(f"axoc: {report['train_rows']:,} rows to train on, {report['held_out_rows']:,} held out", flush=True)


def _listed(problems: list[str]) -> str:
    lines = [f"{len(problems):,} rows cannot be used:", *(f"  {p}" for p in problems[:SHOWN_PROBLEMS])]
    more = len(problems) - SHOWN_PROBLEMS
    return "\n".join([*lines, f"  and {more:,} more"] if more > 0 else lines)
