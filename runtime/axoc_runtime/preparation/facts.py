"""Facts of the records of a shard, beside it: some ninety bytes each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Final

from axoc_runtime.files import write_text
from axoc_runtime.ingest.checks.facts import Fact

ENDING: Final = ".facts.json"
VALUES: Final = attrgetter(*(f.name for f in fields(Fact)))


def facts_of(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:06d}{ENDING}"


def write_facts(path: Path, facts: Sequence[tuple[Fact, bool, int]]) -> None:
    """Of each record that is used: its fact, whether it was cut, and its untrained turns."""
    write_text(path, json.dumps([[*VALUES(fact), cut, untrained] for fact, cut, untrained in facts]))


def read_facts(folder: Path, number: int) -> Iterator[tuple[Fact, bool, int]]:
    for *fact, cut, untrained in json.loads(facts_of(folder, number).read_text(encoding="utf-8")):
        yield Fact(*fact), cut, untrained
