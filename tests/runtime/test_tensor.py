"""Layers split over two ranks have the whole model's gradients: tied embeddings, norms of heads, biases, odd vocabularies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def test_split_layers_have_the_whole_models_gradients() -> None:
    script = Path(__file__).with_name("split_layers_script.py")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "runtime"), "OMP_NUM_THREADS": "1"}
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(script),
    ]
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
