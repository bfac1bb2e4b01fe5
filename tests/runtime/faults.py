"""Rows damaged in twelve ways, each of them once in a hundred rows. Sound rows come from Python's own docstrings."""

from __future__ import annotations

import inspect
import json
import random
import shutil
import statistics
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Damage = Callable[[dict[str, Any], bytes, random.Random], bytes]


def as_line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n"


def sound_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Conversations of one to three questions about functions, some with a tool that looks the answer up; no two alike."""
    draw = random.Random(seed)
    told = [
        (name, " ".join(text.split("\n\n")[0].split()))
        for module in (shutil, statistics, textwrap)
        for name in module.__all__
        if inspect.isfunction(found := getattr(module, name)) and (text := inspect.getdoc(found))
    ]
    return [_sound(number, told, draw) for number in range(count)]


def _sound(number: int, told: list[tuple[str, str]], draw: random.Random) -> dict[str, Any]:
    said: list[dict[str, str]] = []
    for turn in range(draw.randint(1, 3)):
        name, answer = draw.choice(told)
        said.append({"from": "human", "value": f"Question {number}.{turn}: what does {name} do?"})
        if draw.random() < 0.2:
            call = {"name": "look_up", "arguments": {"function": name}}
            said.append({"from": "function_call", "value": json.dumps(call)})
            said.append({"from": "observation", "value": json.dumps({"found": answer})})
        said.append({"from": "gpt", "value": f"{answer} That is answer {number}.{turn}."})
    return {"conversations": said}


def _turns(row: dict[str, Any], change: Callable[[list[dict[str, Any]]], Any]) -> bytes:
    said = [dict(t) for t in row["conversations"]]
    return as_line({"conversations": change(said) or said})


def _latin(row: dict[str, Any], line: bytes, draw: random.Random) -> bytes:
    at = line.index(b"Question")
    return line[:at] + "é".encode("latin-1") + line[at:]


DAMAGES: dict[str, tuple[str, Damage]] = {
    "column renamed": ("missing-column", lambda row, line, draw: as_line({"conversation": row["conversations"]})),
    "cut off": ("malformed", lambda row, line, draw: line[: draw.randint(2, len(line) - 3)] + b"\n"),
    "no object": ("malformed", lambda row, line, draw: b"[" + line.strip() + b"]\n"),
    "no UTF-8": ("encoding", _latin),
    "half a character": (
        "encoding",
        lambda row, line, draw: line.replace(b"Question", b"\\ud83d Question", 1),
    ),
    "column of another type": ("type", lambda row, line, draw: as_line({"conversations": 12})),
    "answer empty": ("empty", lambda row, line, draw: _turns(row, lambda t: t[-1].update(value="  "))),
    "all empty": ("empty", lambda row, line, draw: as_line({"conversations": None, "id": ""})),
    "unknown role": ("unknown-role", lambda row, line, draw: _turns(row, lambda t: t[0].update({"from": "narrator"}))),
    "answer first": ("role-order", lambda row, line, draw: _turns(row, lambda t: t[-1:] + t[:-1])),
    "call without result": (
        "tool-call",
        lambda row, line, draw: _turns(
            row, lambda t: [*t[:1], {"from": "function_call", "value": '{"name": "f", "arguments": {}}'}, *t[-1:]]
        ),
    ),
    "copy": ("duplicate", lambda row, line, draw: b""),  # of an earlier row, which `damaged_file` puts in
}
"""What is done -> (the check that must find it, how)."""


@dataclass(frozen=True)
class Planted:
    line: int
    offset: int
    damage: str
    check: str


@dataclass(frozen=True)
class Kind:
    """Of rows: sound ones by count and seed, and in which ways they are damaged."""

    sound: Callable[[int, int], list[dict[str, Any]]]
    damages: dict[str, tuple[str, Damage]]


TEXTS = Kind(sound_rows, DAMAGES)


def damaged_file(
    path: Path, count: int, *, seed: int = 7, share: float = 0.01, kind_of_rows: Kind = TEXTS
) -> list[Planted]:
    """``count`` rows as JSON Lines, or as one JSON list, a share of them damaged; where, and how."""
    begins, between, ends = (b"[", b",\n", b"]") if path.suffix == ".json" else (b"", b"\n", b"\n")
    draw = random.Random(seed)
    rows, kinds = kind_of_rows.sound(count, seed), list(kind_of_rows.damages)
    wrong = [0, *sorted(draw.sample(range(2, count), max(len(kinds), round(share * count)) - 1))]
    planted: list[Planted] = []
    offset, damaged = len(begins), set(wrong)
    with path.open("wb") as file:
        file.write(begins)
        for index, row in enumerate(rows):
            line = as_line(row)
            if index in damaged:
                kind = kinds[len(planted) % len(kinds)]
                check, damage = kind_of_rows.damages[kind]
                if kind == "copy":
                    earlier = next(i for i in range(index - 1, -1, -1) if i not in damaged)
                    line = as_line(rows[earlier])
                else:
                    line = damage(row, line, draw)
                planted.append(Planted(line=index + 1, offset=offset, damage=kind, check=check))
            written = line.removesuffix(b"\n") + (between if index + 1 < count else ends)
            file.write(written)
            offset += len(written)
    return planted
