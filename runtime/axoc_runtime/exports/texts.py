"""The texts that formats are measured and calibrated on: tokens of the run's own rows, kept beside its model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from axoc_runtime.files import write_json

FILE: Final = "texts.json"
IGNORED: Final = -100
"""The label of a token that is not learned."""
TOKENS: Final = 1024
"""Kept to measure on."""
ROW_TOKENS: Final = 256
CALIBRATION_ROWS: Final = 128
CALIBRATION_TOKENS: Final = 512
"""Of a row; GPTQ's and AWQ's authors calibrate on 128 rows."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """One sequence: ids, and which of them count for the perplexity."""

    ids: tuple[int, ...]
    counted: tuple[bool, ...]


@dataclass(frozen=True, kw_only=True)
class Texts:
    measured_on: str
    """Whose text it is, for the reader of a figure."""
    measured: tuple[Text, ...]
    calibration: tuple[tuple[int, ...], ...]


def keep_texts(folder: Path, train: Any, held_out: Any) -> None:
    """Writes those of a run whose rows are there. Held-out rows measure; rows that were trained on where none is held out."""
    rows, measured_on = (
        (train, "training rows") if held_out is None or not len(held_out) else (held_out, "held-out rows")
    )
    calibration = [_sequence(train[i])[0][:CALIBRATION_TOKENS] for i in range(min(CALIBRATION_ROWS, len(train)))]
    measured = [{"ids": list(t.ids), "counted": list(t.counted)} for t in _measured(rows)]
    value = {"measured_on": measured_on, "measured": measured, "calibration": [c for c in calibration if c]}
    write_json(folder / FILE, value)


def read_texts(folder: Path, tokenizer: Any) -> Texts:
    """As kept; where a run kept none, prose that every Python has, which compares logits and measures no task."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        measured = tuple(Text(ids=tuple(t["ids"]), counted=tuple(t["counted"])) for t in found["measured"])
        calibration = tuple(tuple(c) for c in found["calibration"])
    except (OSError, ValueError, KeyError, TypeError):
        measured, calibration, found = (), (), {}
    if measured:
        return Texts(measured_on=str(found["measured_on"]), measured=measured, calibration=calibration)
    return Texts(measured_on="a text of Python's own", measured=(_prose(tokenizer),), calibration=calibration)


def within(texts: Sequence[Text], tokens: int) -> tuple[Text, ...]:
    """The first of them, at most so many tokens in all, and at least one that has something to predict."""
    kept: list[Text] = []
    for text in texts:
        room = tokens - sum(len(t.ids) for t in kept)
        if kept and room < len(text.ids):
            break
        kept.append(Text(ids=text.ids[: max(room, 2)], counted=text.counted[: max(room, 2)]))
    return tuple(kept)


def _measured(rows: Any) -> list[Text]:
    texts: list[Text] = []
    for index in range(len(rows)):
        ids, labels = _sequence(rows[index])
        room = min(ROW_TOKENS, TOKENS - sum(len(t.ids) for t in texts))
        if room < 2:
            break
        text = Text(ids=tuple(ids[:room]), counted=tuple(label != IGNORED for label in labels[:room]))
        if any(text.counted[1:]):
            texts.append(text)
    return texts


def _sequence(row: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Ids and labels of a row: of pairs, the prompt with the chosen answer, of which the answer counts."""
    for ids, labels in (("input_ids", "labels"), ("chosen_input_ids", "chosen_labels")):
        if ids in row:
            return _plain(row[ids]), _plain(row.get(labels, row[ids]))
    prompt, answer = _plain(row.get("prompt_ids", ())), _plain(row.get("chosen_ids", row.get("completion_ids", ())))
    return prompt + answer, [IGNORED] * len(prompt) + answer


def _plain(values: Any) -> list[int]:
    return [int(v) for v in values]


def _prose(tokenizer: Any) -> Text:
    import argparse

    ids = tuple(tokenizer(argparse.__doc__)["input_ids"][:ROW_TOKENS])
    return Text(ids=ids, counted=(True,) * len(ids))
