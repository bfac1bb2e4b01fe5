"""Malformed specs through the command line: exit code 1, a message with a place and a remedy, nothing written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from axoc.cli import main
from axoc.spec.decode import MAX_BYTES
from click.testing import CliRunner, Result
from spec.specimens import MALFORMED, PYDANTIC_WORDING, expectations, refusal

GENERATED = {
    "empty": (b"", "the spec is empty"),
    "blank_lines": (b"\n\n  \n", "the spec is empty"),
    "only_a_separator": (b"---\n", "the spec is empty"),
    "binary": (b"\x7fELF\x02\x01\x01\0\0\0\0", ":1:8: this is a binary file"),
    "null_byte": (b"model: a/b\nname: x\0y\n", ":2:8: this is a binary file"),
    "png": (b"\x89PNG\r\n\x1a\n", ":1:1: byte 0x89 is not UTF-8"),
    "bad_utf8": (b"model: a/b\nname: caf\xe9\n", ":2:10: byte 0xe9 is not UTF-8"),
    "utf16": ("model: a/b\n".encode("utf-16"), "UTF-16"),
    "utf16_without_mark": ("model: a/b\n".encode("utf-16-be"), "binary"),
    "control_character": (b"model: a/b\nname: \x1b[31mred\n", ":2:7: the character U+001B"),
    "ten_megabytes": (b"a: b\n" * (2 << 20), "bytes are too many"),
    "just_too_large": (b"#" * (MAX_BYTES + 1), "bytes are too many"),
    "deep_flow": (b"model: " + b"[" * 100_000, "nested more than"),
    "deep_flow_lines": (b"model: " + b"[\n" * 100_000, "nested more than"),
    "deep_block": (b"model:\n" + b"".join(b" " * i + b"a:\n" for i in range(1, 400)), "nested more than"),
    "deep_sequence": (b"model: a\nx:\n " + b"- " * 5_000 + b"a\n", "nested more than"),
    "long_scalar": (b"model: a/b\noutput_dir: " + b"x" * 200_000 + b"\n", ":2:13: output_dir is 200,000 characters"),
    "long_key": (b"k" * 900 + b": 1\n", ":1:1: 'kkkk"),
    "many_problems": (b"".join(b"k%d: 1\n" % i for i in range(20_000)), "and 19,9"),
    "long_word": (b"model: a/b\ntarget: " + b"t" * 100_000 + b"\n", ":2:9: target.type is 'tttt"),
}


def run(path: Path, out: Path) -> Result:
    return CliRunner().invoke(main, ["plan", str(path), "--out", str(out)])


def assert_refused(path: Path, folder: Path) -> str:
    before = sorted(os.walk(folder))
    result = run(path, folder / "bundle")
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert sorted(os.walk(folder)) == before
    text = result.stderr
    assert str(path) in text
    assert "fix: " in text or "expected: " in text
    assert "Traceback" not in text
    assert not [w for w in PYDANTIC_WORDING if w in text]
    assert all(c.isprintable() or c == "\n" for c in text)
    return text


def test_there_are_many_specimens() -> None:
    assert len(MALFORMED) >= 70


@pytest.mark.parametrize("specimen", MALFORMED, ids=lambda path: path.stem)
def test_specimens(specimen: Path, tmp_path: Path) -> None:
    path = tmp_path / specimen.name
    path.write_bytes(specimen.read_bytes())
    text = assert_refused(path, tmp_path)
    expected = expectations(specimen.read_text())
    assert expected, "a specimen says what is expected"
    blocks = [b for b in ("\n" + text).split(f"\n{path}:") if b.strip()]
    assert len(blocks) == len(expected)
    for block, one in zip(blocks, expected, strict=True):
        assert one.place == "-" or block.startswith(f"{one.place}: "), block
        assert all(part in block for part in one.parts), (block, one.parts)
        assert "\n  fix: " in block or "\n  expected: " in block
    assert all(len(line) < 400 for line in text.splitlines())


@pytest.mark.parametrize("name", GENERATED)
def test_generated(name: str, tmp_path: Path) -> None:
    content, expected = GENERATED[name]
    path = tmp_path / f"{name}.yaml"
    path.write_bytes(content)
    text = assert_refused(path, tmp_path)
    assert expected in text
    assert len(text) < 100_000


def test_ten_megabytes_are_refused_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML would take minutes, so it sees nothing of them."""
    monkeypatch.setattr("axoc.spec.load.read_document", lambda *_: pytest.fail("it was read"))
    assert [d.message for d in refusal(b"model: [a, b]\n" * 750_000)] == ["10,500,000 bytes are too many for a spec"]


def test_all_problems_come_in_the_order_of_the_file() -> None:
    found = refusal("model: a/b\ntraining:\n  epochs: x\n  seed: y\ntarget: moon\nepochs: 3\n")
    assert [(d.line, d.column) for d in found] == [(3, 11), (4, 9), (5, 9), (6, 1)]


def test_a_problem_between_fields_is_reported_with_problems_of_others() -> None:
    found = refusal("model: a/b\ntraining: {epochs: 1, max_steps: 2, seed: x}\n")
    assert ["training.max_steps" in d.message or "training.seed" in d.message for d in found] == [True, True]


def test_no_problem_follows_from_another() -> None:
    found = refusal("model: a/b\ntraining: {early_stopping_patience: 1}\ndataset: {validation_split: -0.1}\n")
    assert [d.message for d in found] == ["dataset.validation_split is -0.1"]


@pytest.mark.parametrize("typo", ["modle: a/b\n", "model: {di: a/b}\n", "base_model: a/b\n", "model: !x a/b\n"])
def test_a_misspelt_model_is_one_problem(typo: str) -> None:
    assert len(refusal(typo)) == 1
