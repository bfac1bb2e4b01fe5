"""The quickstart, made short, planned for two machines of one process each, and launched as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/SmolLM2-135M-Instruct/config.json"
STEPS = 6


def make_work(folder: Path, target: Any) -> Path:
    """A folder with a space in its name, where the spec's relative paths hold; the bundle in it."""
    work = folder / "my work"
    work.mkdir()
    for name in ("models", "examples"):
        (work / name).symlink_to(ROOT / name)
    spec: dict[str, Any] = yaml.safe_load((ROOT / "specs/quickstart.yaml").read_text())
    spec["model"]["config"] = str(ROOT / "specs" / spec["model"]["config"])
    spec["dataset"] |= {"max_seq_length": 64, "validation_split": 0.01}
    spec["training"] |= {"max_steps": STEPS, "eval_steps": STEPS, "save_steps": 2, "logging_steps": 1}
    spec["samples"] = {"prompts": []}
    spec |= {"target": target, "inventory": "cpu:1x2"}
    (work / "spec.yaml").write_text(yaml.safe_dump(spec))
    done = subprocess.run([sys.executable, "-m", "axoc", "plan", "spec.yaml"], cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return work


def environment(work: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AXOC_", "PYTHON", "RAY_", "SLURM", "SBATCH"))}
    return kept | {"XDG_CACHE_HOME": str(work / "cache"), "OMP_NUM_THREADS": "1"} | more


def launch_command(work: Path, *options: str) -> list[str]:
    return [str(work / "bundle" / "launch.sh"), "--no-install", "--python", sys.executable, *options]


def wait_for(path: Path, seconds: float = 600, running: subprocess.Popen[str] | None = None) -> None:
    """Which ``running`` is to write; where that ends first, what it told."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert running is None or running.poll() is None, running.communicate()[0]
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.1)


def metrics(work: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((work / "axoc-output" / "metrics.json").read_text())
    return value


def losses(work: Path) -> dict[int, float]:
    """Of training, by step; of a step that was made twice, the later one."""
    lines = [json.loads(line) for line in (work / "axoc-output" / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}
