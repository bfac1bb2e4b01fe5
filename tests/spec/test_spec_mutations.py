"""Whatever the bytes are, load_spec gives a request or a UserError whose text can be shown."""

from __future__ import annotations

from axoc.errors import UserError
from axoc.ir.canonical import dumps
from axoc.spec.load import load_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from spec.specimens import MALFORMED, PYDANTIC_WORDING, SPECS
from spec.test_spec_good import CONTRACT

TEXTS = [CONTRACT, *(p.read_text() for p in SPECS), *(p.read_text() for p in MALFORMED)]
PIECES = [
    *("null", "~", "[]", "{}", "[[", "}", "\t", "\n", "\n  ", ": ", " #", "- ", "---\n", "...\n", "|\n", ">-\n", "? "),
    *(
        "&a ",
        "*a",
        "!!python/name:os ",
        "!!int ",
        "! ",
        "<<: ",
        "%YAML 1.1\n",
        "'",
        '"',
        "\\ud800",
        '"\\x00"',
        "\ufeff",
    ),
    *(
        "-1",
        "1e999",
        "010",
        "0x1F",
        ".nan",
        "9" * 50,
        "1:30",
        "true",
        "no",
        "auto",
        "2020-01-01",
        "\u202e",
        "é",
        "\x85",
    ),
    *("model", "training: ", "dataset: ", "adapter: ", "quantization: ", "{method: auto}", "options: {a: {b: [1]}}"),
]
piece = st.one_of(st.sampled_from(PIECES), st.text(max_size=6))
edit = st.tuples(st.floats(0, 1), st.integers(0, 12), piece)


def check(content: bytes) -> None:
    try:
        made = load_spec(content, "spec.yaml")
    except UserError as error:
        text = error.render()
        assert error.diagnostics
        assert all(d.expected or d.fix or d.message.startswith("and ") for d in error.diagnostics)
        assert not [w for w in PYDANTIC_WORDING if w in text and w.encode() not in content]
        text.encode()
    else:
        dumps(made).encode()


@settings(max_examples=300)
@given(st.sampled_from(TEXTS), st.lists(edit, min_size=1, max_size=5))
def test_mutated_specs(text: str, edits: list[tuple[float, int, str]]) -> None:
    for where, dropped, inserted in edits:
        at = int(where * len(text))
        text = text[:at] + inserted + text[at + dropped :]
    check(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_random_bytes(content: bytes) -> None:
    check(content)


@settings(max_examples=150)
@given(st.sampled_from(TEXTS), st.floats(0, 1), st.binary(min_size=1, max_size=8))
def test_bytes_within_a_spec(text: str, where: float, inserted: bytes) -> None:
    content = text.encode()
    at = int(where * len(content))
    check(content[:at] + inserted + content[at:])


VALUES = st.sampled_from([p for p in PIECES if "\n" not in p])
KEYS = st.sampled_from([line.split(":")[0].strip() for line in CONTRACT.splitlines() if ":" in line])


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(["", "training", "model", "dataset", "adapter"]), KEYS, VALUES), max_size=4))
def test_any_value_at_any_key(rows: list[tuple[str, str, str]]) -> None:
    lines = [f"{part}: {{{key}: {value}}}" if part else f"{key}: {value}" for part, key, value in rows]
    check("\n".join(["model: a/b", *lines]).encode())
