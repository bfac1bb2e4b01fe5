"""The half of a job that reading and checking rows needs. `axoc data check` writes it from the spec alone: no plan is
made, and no hardware is named."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import SCHEMA_VERSION, DatasetJob, Grpo, Located, Tokenizer
from axoc_runtime.schema import read


@dataclass(frozen=True, kw_only=True)
class DataModel:
    id: str | None
    revision: str | None
    tokenizer: Tokenizer
    vision: bool = False
    trust_remote_code: bool


@dataclass(frozen=True, kw_only=True)
class DataTraining:
    objective: str
    grpo: Grpo | None


@dataclass(frozen=True, kw_only=True)
class DataJobFile:
    """The keys of data.json."""

    schema_version: int
    base_dir: str
    model: DataModel
    datasets: tuple[DatasetJob, ...]
    training: DataTraining
    output_dir: str
    logging_level: str
    plugins: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DataJob(Located, DataJobFile):
    bundle_dir: Path = field(compare=False)
    base: Path = field(compare=False)


def read_data_job(path: Path) -> DataJob:
    """Raises RuntimeFailure naming every problem of the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RuntimeFailure(f"{path}: cannot be read: {error}", EXIT_INPUTS) from None
    problems: list[str] = []
    file = read(DataJobFile, value, "data", problems)
    if file is not None and file.schema_version != SCHEMA_VERSION:
        problems.append(f"schema_version is {file.schema_version}, this runtime reads {SCHEMA_VERSION}")
    if problems:
        raise RuntimeFailure(f"{path}: " + "; ".join(problems), EXIT_INPUTS, "run axoc data check of this version")
    folder = path.resolve().parent
    own = {f.name: getattr(file, f.name) for f in fields(DataJobFile)}
    return DataJob(**own, bundle_dir=folder, base=(folder / file.base_dir).resolve())
