"""The first row of a local data file, looked at without reading the rest: whether it is about images. Files of other
kinds, or elsewhere, are looked at by the run alone."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

FIRST_BYTES: Final = 1 << 20
IMAGES: Final = ("image", "images")
TURNS: Final = ("messages", "conversations")
IMAGE_PARTS: Final = ("image", "image_url", "input_image")
"""As the runtime's formats have them (tests/contract/test_images.py)."""
FEATURE: Final = (b'"_type": "Image"', b'"_type":"Image"')
"""In the footer of a Parquet file that the datasets library wrote."""
FOOTER: Final = 8
"""Bytes of a Parquet file's end: how long its footer is, and its mark."""


def image_column(file: Path) -> str | None:
    """Where the images stand, e.g. ``images`` or ``messages[0].content``. None where there are none, or nobody can tell."""
    try:
        if file.suffix.lower() == ".parquet":
            return _of_footer(file)
        with file.open("rb") as stream:
            text = stream.read(FIRST_BYTES).decode("utf-8-sig", "replace")
        return _of_row(_first(file.suffix.lower(), text))
    except (OSError, ValueError, RecursionError, csv.Error):
        return None


def _first(suffix: str, text: str) -> Any:
    """A row, as far as it can be told. Raises ValueError or csv.Error."""
    if suffix in (".csv", ".tsv"):
        lines = csv.reader(text.splitlines(), delimiter="\t" if suffix == ".tsv" else ",")
        header, row = next(lines, []), next(lines, [])
        return {name: value or None for name, value in zip(header, row, strict=False)}
    if suffix not in (".json", ".jsonl", ".ndjson"):
        return None
    begins = text.lstrip()
    return json.JSONDecoder().raw_decode(begins.removeprefix("[").lstrip())[0] if begins else None


def _of_row(row: Any) -> str | None:
    if not isinstance(row, Mapping):
        return None
    for name in IMAGES:
        if row.get(name):
            return name
    for name in TURNS:
        turns = row.get(name)
        for index, turn in enumerate(turns if isinstance(turns, list) else []):
            content = turn.get("content") if isinstance(turn, Mapping) else None
            parts = content if isinstance(content, list) else []
            if any(isinstance(p, Mapping) and p.get("type") in IMAGE_PARTS for p in parts):
                return f"{name}[{index}].content"
    return None


def _of_footer(file: Path) -> str | None:
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - FOOTER))
        length = int.from_bytes(stream.read(4), "little")
        stream.seek(max(0, size - FOOTER - min(length, FIRST_BYTES)))
        footer = stream.read(FIRST_BYTES)
    return "its features" if any(mark in footer for mark in FEATURE) else None
