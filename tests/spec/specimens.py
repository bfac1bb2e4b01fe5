"""Malformed specs with what must be said of them; helpers shared by the tests of the spec."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from axoc.errors import Diagnostic, UserError
from axoc.spec.load import load_spec

ROOT = Path(__file__).resolve().parents[2]
MALFORMED = sorted((ROOT / "tests" / "spec" / "malformed").glob("*.yaml"))
SPECS = sorted((ROOT / "specs").glob("*.yaml"))

PYDANTIC_WORDING = (
    "pydantic",
    "Input should",
    "Extra inputs",
    "Field required",
    "value_error",
    "type_error",
    "Value error",
    "valid integer",
    "valid string",
    "extra_forbidden",
    "input_value",
    "union_tag",
    "cannot be read",
)


@dataclass(frozen=True)
class Expected:
    """``# expect: 3:5 message | expected | fix``: every part stands in that diagnostic, and there is no other one."""

    place: str
    parts: tuple[str, ...]


def expectations(text: str) -> list[Expected]:
    lines = [line.removeprefix("# expect: ") for line in text.split("\n") if line.startswith("# expect: ")]
    return [Expected(place, tuple(rest.split(" | "))) for place, _, rest in (line.partition(" ") for line in lines)]


def refusal(content: bytes | str, file: str = "spec.yaml") -> tuple[Diagnostic, ...]:
    """What load_spec says of a spec it must refuse."""
    with pytest.raises(UserError) as caught:
        load_spec(content.encode() if isinstance(content, str) else content, file)
    return caught.value.diagnostics
