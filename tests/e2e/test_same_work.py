"""benchmarks/throughput.py gives axoc and TRL the same work: then both learn the same, step by step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
SMALL = Path(__file__).resolve().with_name("small_throughput.py")
ROOT = SMALL.parents[2]
FP32 = 2e-6
"""Of losses of about 8, summed in another order."""


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """By job and side: (tokens so far, loss) of every step."""
    folder = tmp_path_factory.mktemp("same")
    imported = os.pathsep.join(str(ROOT / name) for name in ("tests", "benchmarks"))
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTORCH_ALLOC_CONF": "",
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": imported,
    }
    command = [sys.executable, str(SMALL), str(folder), str(folder / "rows.jsonl")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    told = ran.stdout[-3000:] + ran.stderr[-3000:]
    assert ran.returncode == 0, told
    found = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert len(found) == 4, told
    return {(row["job"], row["part"]): row["losses"] for row in found}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_axoc_and_trl_learn_the_same(losses: Any, method: str) -> None:
    axoc, trl = losses[method, "axoc"], losses[method, "tuned"]
    assert len(axoc) == 10
    assert [tokens for tokens, _ in axoc] == [tokens for tokens, _ in trl], "the same packs in each step"
    assert [loss for _, loss in axoc] == pytest.approx([loss for _, loss in trl], rel=FP32)
    assert axoc[-1][1] < axoc[0][1] - 0.05, "they learn"
