"""Rows for the benchmark of preparation: conversations of given files, or of the documentation of Python's library."""

from __future__ import annotations

import inspect
import json
import pkgutil
import random
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

CHARACTERS_A_TOKEN = 4.3
SIGMA = 0.8
SKIPPED = ("antigravity", "this", "idlelib", "test", "turtle", "tkinter", "lib2to3", "__")


def library_text() -> str:
    """Docstrings of modules that can be imported quietly."""
    found = []
    for module in sorted(m.name for m in pkgutil.iter_modules() if m.name in sys.stdlib_module_names):
        if module.startswith(SKIPPED):
            continue
        try:
            members = vars(import_module(module))
        except Exception:  # a module that this machine lacks something for
            continue
        found += [text for name in sorted(members) if (text := inspect.getdoc(members[name]))]
    return "\n\n".join(dict.fromkeys(found))


Messages = list[dict[str, str]]


def rows(count: int, data: list[Path], median: int = 300) -> Iterator[Messages]:
    """No two are alike."""
    if not data:
        yield from stretches(count, median)
        return
    found = [turns for path in data for turns in conversations(path)]
    for index in range(count):
        first, *rest = found[index % len(found)]
        yield [{**first, "content": f"{first['content']} (case {index})"}, *rest]


def stretches(count: int, median: int) -> Iterator[Messages]:
    """Each from a place of its own of the library's text."""
    draw, text = random.Random(7), library_text()
    for index in range(count):
        size = round(median * CHARACTERS_A_TOKEN * draw.lognormvariate(0, SIGMA))
        start = draw.randrange(max(1, len(text) - size))
        answer = text[start : start + size].strip() or text[:100]
        asked = {"role": "user", "content": f"Question {index}: {answer[:60]}?"}
        yield [asked, {"role": "assistant", "content": answer}]


def conversations(path: Path) -> Iterator[Messages]:
    """Of a file, up to the last answer; calls of tools as text, as the template of the benchmark's model has no words for
    them."""
    from axoc_runtime.ingest.base import BadRow, Conversation
    from axoc_runtime.ingest.readers.json_files import Json, JsonLines
    from axoc_runtime.ingest.registry import schema_of
    from axoc_runtime.ingest.sources import Source
    from axoc_runtime.ingest.spelled import as_text

    reader = JsonLines() if path.suffix == ".jsonl" else Json()
    for record in reader.read(Source(written=path.name, path=path)):
        try:
            made = schema_of(record.row, record.place, (Conversation,)).convert(record.row)
        except BadRow:
            continue
        said = list(as_text(made.messages)) if isinstance(made, Conversation) else []
        while said and said[-1]["role"] != "assistant":
            said.pop()
        yield [{"role": m["role"], "content": m["content"]} for m in said]


def write(folder: Path, rows_: Iterator[Messages]) -> None:
    """The same rows for either side."""
    with (folder / "data.jsonl").open("w") as ours, (folder / "trl.jsonl").open("w") as theirs:
        for row in rows_:
            ours.write(json.dumps({"messages": row}) + "\n")
            theirs.write(json.dumps(asked_and_answered(row)) + "\n")


def asked_and_answered(turns: Messages) -> dict[str, Messages]:
    """As TRL takes what is learned: the last answer."""
    return {"prompt": turns[:-1], "completion": turns[-1:]}
