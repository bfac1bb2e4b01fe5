"""The benchmark that sets the plan beside a measured sweep: what it sweeps, and what it says of rows that were measured."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import chat_rows
import plan_quality
from plan_quality import FEWEST, Candidate, Job, concordance, planned, reported, same, sweep

pytestmark = pytest.mark.slow
JOB = Job(name="small", model="qwen2.5-0.5b", method="full", seq=512, total=4)


def ran(predicted: float, measured: float, noise: float = 0.0) -> Candidate:
    slowest, fastest = measured * (1 - noise), measured * (1 + noise)
    return Candidate(row={}, predicted=predicted, measured=measured, slowest=slowest, fastest=fastest)


def tau(*found: tuple[float, float]) -> float:
    return concordance(itertools.combinations([ran(*pair) for pair in found], 2))


def test_kendall_tau_counts_pairs_in_order() -> None:
    assert tau((1, 10), (2, 20), (3, 30)) == 1
    assert tau((1, 30), (2, 20), (3, 10)) == -1
    assert tau((1, 10), (2, 30), (3, 20)) == pytest.approx(1 / 3)
    assert tau((1, 10), (1, 20), (2, 30)) == 1  # a tie is no pair


def test_candidates_whose_steps_overlap_are_not_told_apart() -> None:
    assert ran(1, 100, noise=0.01).told_apart(ran(1, 103, noise=0.01))
    assert ran(1, 103, noise=0.01).told_apart(ran(1, 100, noise=0.01))
    assert not ran(1, 100, noise=0.01).told_apart(ran(1, 101, noise=0.01))


def test_a_sweep_holds_the_plan_the_defaults_and_enough_others_and_its_report_their_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_quality, "JOBS", (JOB,))
    configs = sweep(JOB)
    assert len(configs) == FEWEST and same(configs[0], planned(JOB))
    assert [c["what"] for c in configs[:3]] == ["plan", "trainer default", "trl default"]
    assert not any(same(a, b) for i, a in enumerate(configs[3:]) for b in configs[:3] + configs[3:][:i])
    assert all(c["mbs"] * c["ga"] == JOB.total for c in configs)
    assert {json.dumps(c["gc"]) for c in configs} == {"false", "12", "true"}
    assert {c["kernels"] for c in configs} == {"none", "liger", "chunked"}
    assert {c["packing"] for c in configs} == {c["compile"] for c in configs} == {True, False}
    seconds = [1.0 + 0.1 * i for i in range(len(configs))]
    seconds[5] = 0.8  # a candidate that is faster than the plan
    rows = [c | measured_in(s) for c, s in zip(configs, seconds, strict=True)]
    rows[1] = configs[1] | {"error": "OutOfMemoryError: CUDA out of memory"}
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    text = reported(file)
    assert f"| small | {FEWEST} | {FEWEST - 1} | 2,048 | 2,560 | 80.0% | yes |" in text
    assert "OutOfMemoryError |  |" in text and "100.0%" in text
    pairs = (FEWEST - 1) * (FEWEST - 2) // 2
    assert f"| {pairs} of {pairs} |" in text and "| yes |" in text.split("| told apart |")[-1]


def measured_in(seconds: float) -> dict[str, Any]:
    """Three steps to settle, then steps that are all alike."""
    return {"step_median_s": seconds, "step_s": [9.0, 2.0, 2.0, *[seconds] * 3], "real_tokens_a_step": 2048.0}


def test_rows_of_the_sweep_are_what_the_runtime_hands_over() -> None:
    """Packs of whole documents with borders, positions and labels of their own; and the padded rows that are swept beside."""
    torch = pytest.importorskip("torch")
    rows = chat_rows.chat_rows(6, 512, packed=True)
    batch = chat_rows.Packed(512)([rows[0], rows[1]])
    ends = batch["cu_seq_lens_q"].tolist()
    assert ends[0] == 0 and ends[-1] == batch["input_ids"].shape[1] == 1024
    assert sum(len(d) for r in (rows[0], rows[1]) for d in r["documents"]) > 0.95 * 1024
    for begin, end in itertools.pairwise(ends):
        assert batch["position_ids"][0, begin:end].tolist() == list(range(end - begin))
        assert batch["labels"][0, begin] == chat_rows.IGNORED
    padded = chat_rows.padded([chat_rows.chat_rows(4, 512, packed=False)[i] for i in range(4)])
    assert padded["input_ids"].shape == padded["attention_mask"].shape == padded["labels"].shape
    assert torch.equal(padded["labels"] == chat_rows.IGNORED, padded["attention_mask"] == 0)
    assert padded["attention_mask"].sum(1).max() == padded["input_ids"].shape[1]
