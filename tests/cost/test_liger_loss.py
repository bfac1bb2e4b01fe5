"""Seconds of Liger's fused loss and of the chunked one: as cut as they are, and as recorded on one H100."""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axoc.cost.kernels import kernels_of
from axoc.cost.liger_loss import chunk_rows, least_seconds
from axoc.cost.losses import COMPILED_PASSES
from axoc.cost.measured import Measured

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from closed_form import scenario_of  # noqa: E402

ROW = {"model": "llama-3.2-1b", "method": "full", "dtype": "bf16", "gc": False, "mbs": 1, "seq": 2048}
RECORDED = BENCHMARKS / "rows/h100-kernel-times.jsonl.xz"
WORDS, WIDTH = 128_256, 2048.0


def kernels() -> Measured:
    found = kernels_of(scenario_of(ROW, "h100-sxm-80gb"))
    assert isinstance(found, Measured)
    return found


def loss_seconds(tokens: float, hidden: float, *, trained: bool) -> float:
    found = kernels().fused_loss(tokens, hidden, float(WORDS), trained=trained)
    assert found is not None
    return float(found[0])


def recorded(name: str, phase: str) -> list[Any]:
    with lzma.open(RECORDED, "rt") as file:
        row = next(row for row in map(json.loads, file) if row["id"] == name)
    kernels: list[Any] = row["top_by_phase"][phase]
    return kernels


def test_chunks_are_a_power_of_two_of_rows() -> None:
    """63 times as wide as the stream, but 32 chunks: fewer passes over the head than widths."""
    tokens, hidden = np.array([2048.0, 8192.0, 65536.0]), np.array([2048.0, 3072.0, 4096.0])
    for width in hidden:
        assert list(tokens / chunk_rows(tokens, width, float(WORDS))) == [32.0, 32.0, 32.0]
    assert list(chunk_rows(np.array([3.0]), 2048.0, float(WORDS))) == [1.0]


@pytest.mark.parametrize("trained", [True, False])
def test_a_head_twice_as_wide_takes_twice_as_long(trained: bool) -> None:
    """It was measured for one width of these words: few rows a chunk read it as often, whatever its width."""
    for tokens in (2048.0, 32768.0):
        ratio = loss_seconds(tokens, 4096.0, trained=trained) / loss_seconds(tokens, 2048.0, trained=trained)
        assert 1.7 < ratio < 2.1


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("hidden", [896.0, 2048.0, 3072.0, 4096.0])
def test_no_loss_computes_faster_than_products_do(trained: bool, hidden: float) -> None:
    for tokens in (8192.0, 32768.0, 65536.0):
        rate = (6.0 if trained else 4.0) * tokens * hidden * WORDS / loss_seconds(tokens, hidden, trained=trained)
        assert rate < 0.8 * kernels().datasheet.product_rate(2.0)


def test_the_loss_takes_what_was_recorded_in_a_step_of_large_batches() -> None:
    """No row of the profile: 32,768 tokens, where it has 8,192 at most."""
    chunks = [k for k in recorded("packed-recomputed", "forward") if k[3] == 32 and "add_mean" not in k[0]]
    assert any("liger_cross_entropy" in name for name, *_ in chunks)
    loss = [k for k in chunks if "192x192" not in k[0]]  # those are the blocks' 32 wide products
    assert loss_seconds(32768.0, WIDTH, trained=True) == pytest.approx(sum(k[2] for k in loss), rel=0.06)


def test_a_compiled_chunk_goes_over_its_logits_as_often_as_was_recorded() -> None:
    _, _, seconds, count = next(k for k in recorded("packed-1", "forward") if "exp_logsumexp" in k[0])
    moved = float(kernels().moved(COMPILED_PASSES * 2.0 * 2048.0 * WORDS)[0])
    assert moved == pytest.approx(seconds / count, rel=0.08), "three passes would be off by 29%"


def test_the_least_is_the_heads_bytes_where_rows_are_few_and_arithmetic_where_they_are_many() -> None:
    def least(tokens: float, flops: float, bandwidth: float) -> float:
        return float(least_seconds(np.array([[tokens, WIDTH, WORDS]]), flops, bandwidth, 0.0, trained=False)[0])

    assert least(1024.0, 2e15, 3e12) == pytest.approx(least(1024.0, 1e15, 3e12))
    assert least(65536.0, 2e15, 1e18) == pytest.approx(0.5 * least(65536.0, 1e15, 1e18), rel=1e-3)
