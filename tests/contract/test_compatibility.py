"""docs/compatibility.md is what the rules and the tests say, and neither contradicts the other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from combinations import RAN, Run, Written, claimed, of_job
from runtime.jobs import LORA, job_value

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import compatibility  # noqa: E402
import compatibility_doc  # noqa: E402


@pytest.mark.slow
def test_the_page_is_current() -> None:
    assert compatibility_doc.TARGET.read_text(encoding="utf-8") == compatibility_doc.document(), "run make golden"


def test_a_rule_refuses_and_its_fix_does_not() -> None:
    refused = compatibility.verdict("lora", "nf4", "zero3")
    assert refused is not None and refused.rule == "quantized-base-sharded"
    assert compatibility.verdict("lora", "nf4", "zero2") is None
    written = compatibility.family_verdict("gpt2", "gguf")
    assert written is not None and written.rule == "export-architecture"
    assert compatibility.family_verdict("gpt2", "onnx") is None


def test_a_test_that_claims_what_a_rule_refuses_is_an_error() -> None:
    with pytest.raises(ValueError, match="lora, nf4, zero3, which the rule quantized-base-sharded refuses"):
        compatibility_doc._row("lora", "nf4", "zero3", {("lora", "nf4", "zero3", "none")})
    with pytest.raises(ValueError, match="gpt2, gguf, which the rule export-architecture refuses"):
        compatibility_doc._families("", ("gguf",), {("gpt2", "gguf")})


def test_a_cell_is_ticked_only_where_a_test_claims_it() -> None:
    cells = compatibility_doc._row("none", "none", "ddp", {("none", "none", "ddp", "gguf")})
    formats = compatibility.formats()
    assert [f for f, cell in zip(formats, cells[1:], strict=True) if cell == compatibility_doc.WORKS] == ["gguf"]
    assert compatibility_doc._row("none", "none", "ddp", set()) == ("·",) * (1 + len(formats))


def test_what_a_marker_claims() -> None:
    assert claimed({"adapter": "lora", "strategy": "{kind}", "export": ("none", "gguf")}, {"kind": "ddp"}) == {
        Run("lora", "none", "ddp"),
        Run("lora", "none", "ddp", "gguf"),
    }
    assert claimed({"family": "falcon", "export": ("onnx", "ort")}, {}) == {
        Written("falcon", "onnx"),
        Written("falcon", "ort"),
    }
    with pytest.raises(AssertionError, match="no strategies"):
        claimed({"strategies": "ddp"}, {})


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, Run("none", "none", "ddp")),
        ({"adapter": LORA}, Run("lora", "none", "ddp")),
        ({"adapter": LORA | {"use_dora": True}, "distributed__strategy": "fsdp"}, Run("dora", "none", "fsdp")),
        ({"adapter": LORA | {"init": "loftq"}, "model__quantization": {"method": "nf4"}}, Run("loftq", "nf4", "ddp")),
    ],
)
def test_what_a_job_is(changes: dict[str, Any], wanted: Run) -> None:
    assert of_job(job_value(**changes)) == wanted
    assert wanted.adapter in compatibility.ADAPTERS


@pytest.mark.xfail(strict=True, reason="it claims what it does not run")
@pytest.mark.combination(adapter="none", strategy="ddp")
def test_a_marker_that_claims_what_did_not_run_fails_its_test() -> None:
    assert not RAN["tests/contract/test_compatibility.py"]
