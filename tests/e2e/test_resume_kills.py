"""Three of the twenty kills of benchmarks/kills.py: at any moment, and while a checkpoint is being written."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def test_three_kills_and_the_losses_of_a_run_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import kills

    seed = random.randrange(2**32)
    print(f"seed {seed}")
    report = kills.run(3, "fsdp", seed, tmp_path)
    assert not report.problems, report.problems
    assert len(report.kills) == 3
    assert report.compared == 3 * kills.STEPS_A_KILL and report.largest_difference <= kills.TOLERANCE
