"""The text that methods are measured on and calibrated with: documents of a file, or of Python's own reference manual."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.exports.texts import FILE
from axoc_runtime.files import write_json

DEFAULT: Final = "the language reference of Python (pydoc_data.topics, PSF-2.0), every other topic"
LEAST_WINDOWS: Final = 4
"""Fewer say nothing about how sure a figure is."""
LABELS: Final = ("role", "from", "id", "source", "type", "name")
"""Keys of rows that hold no text."""


def keep_windows(folder: Path, tokenizer: Any, data: Path | None, sizes: tuple[int, int, int, int]) -> str:
    """Writes the exporters' texts.json; whose text it is. ``sizes``: windows, tokens of one, calibration rows, tokens of one.

    Every other document is held out, so that none is calibrated with. Raises RuntimeFailure where the text is too short.
    """
    windows, window_tokens, rows, row_tokens = sizes
    documents = list(_documents(data))
    held_out = _rows(documents[1::2], tokenizer, windows, window_tokens)
    if len(held_out) < LEAST_WINDOWS:
        found = f"the held-out half of {data or DEFAULT} has {len(held_out)} windows of {window_tokens} tokens"
        fix = f"name a longer --data, or a shorter --window-tokens: {LEAST_WINDOWS} windows are the least"
        raise RuntimeFailure(found, EXIT_INPUTS, fix)
    told = DEFAULT if data is None else f"{data.name}, every other document"
    measured = [{"ids": ids, "counted": [True] * len(ids)} for ids in held_out]
    calibration = _rows(documents[0::2], tokenizer, rows, row_tokens)
    write_json(folder / FILE, {"measured_on": told, "measured": measured, "calibration": calibration})
    return told


def _documents(data: Path | None) -> Iterator[str]:
    if data is None:
        from pydoc_data.topics import topics

        yield from (topics[name] for name in sorted(topics))
        return
    try:
        text = data.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RuntimeFailure(f"{data}: {error}", EXIT_INPUTS, "name a text or JSON file in UTF-8") from None
    yield from _paragraphs(text) if data.suffix not in (".json", ".jsonl") else map(_text, _json_rows(data, text))


def _paragraphs(text: str) -> list[str]:
    return [p for p in text.split("\n\n") if p.strip()]


def _json_rows(data: Path, text: str) -> list[Any]:
    try:
        if data.suffix == ".json":
            found = json.loads(text)
            return found if isinstance(found, list) else [found]
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise RuntimeFailure(f"{data} is no JSON: {error}", EXIT_INPUTS, "name a text or JSON file in UTF-8") from None


def _text(row: Any) -> str:
    """All that a row says, whatever its format: its strings in their order."""
    return "\n".join(_strings(row))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in LABELS:
                yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _rows(documents: Iterable[str], tokenizer: Any, count: int, tokens: int) -> list[list[int]]:
    """The first ``count`` slices of the documents' tokens, each beginning as the model's sequences do."""
    first = _beginning(tokenizer)
    room, ids = tokens - len(first), []
    for document in documents:
        ids += tokenizer(document + "\n\n", add_special_tokens=False)["input_ids"]
        if len(ids) >= count * room:
            break
    return [first + ids[i : i + room] for i in range(0, len(ids) - room + 1, room)][:count]


def _beginning(tokenizer: Any) -> list[int]:
    """The token that the tokenizer puts first, where it does: some models compute nonsense without it."""
    ids = tokenizer("a")["input_ids"]
    return ids[:1] if ids and ids[0] == tokenizer.bos_token_id else []
