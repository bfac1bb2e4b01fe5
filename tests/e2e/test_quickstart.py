"""The main job as a user runs it: plan, bundle, launch.sh; twice; on another input; killed half way and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from combinations import of_job, ran
from exports.tiny import run_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ALPACA = [
    {"instruction": f"Say {word}.", "input": "", "output": f"{word}!"}
    for word in ["one", "two", "three", "four", "five"]
]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with a space in its name, where the spec's relative paths hold."""
    folder = tmp_path / "my work"
    folder.mkdir()
    for name in ("models", "examples"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "alpaca.json").write_text(json.dumps(ALPACA * 8))
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model of a Llama's shape in the place of SmolLM2: what launch.sh does of any model takes seconds with it."""
    folder = run_of("llama", tmp_path_factory.mktemp("small")) / "final"
    return {"model": {"id": str(folder), "dtype": "float32"}, "dataset__path": "alpaca.json"}


def plan(work: Path, **changes: Any) -> None:
    """The quickstart, made short. ``training__max_steps=2`` sets one key of a part, ``model={}`` the part."""
    spec: dict[str, Any] = yaml.safe_load((ROOT / "specs/quickstart.yaml").read_text())
    spec["model"]["config"] = str(ROOT / "specs" / spec["model"]["config"])
    spec["dataset"] |= {"max_seq_length": 64, "validation_split": 0.01}
    spec["training"] |= {"max_steps": 4, "eval_steps": 2, "save_steps": 2, "logging_steps": 1}
    spec["samples"]["max_new_tokens"] = 8
    for name, value in changes.items():
        part, _, key = name.partition("__")
        if key:
            spec.setdefault(part, {})[key] = value
        else:
            spec[part] = value
    (work / "spec.yaml").write_text(yaml.safe_dump(spec))
    done = subprocess.run([sys.executable, "-m", "axoc", "plan", "spec.yaml"], cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def start(work: Path, *options: str) -> subprocess.Popen[str]:
    command = [str(work / "bundle" / "launch.sh"), "--no-install", "--python", sys.executable, *options]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AXOC_", "PYTHON", "OMP_"))}
    return subprocess.Popen(
        command, cwd="/", env=kept | {"XDG_CACHE_HOME": str(work / "cache")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> str:
    """All it printed. Fails where it did not end well."""
    shown, _ = process.communicate(timeout=900)
    assert process.returncode == 0, shown
    assert "Traceback" not in shown
    return shown


def metrics(work: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((work / "axoc-output" / "metrics.json").read_text())
    return value


def test_planned_launched_learned_and_answered(work: Path) -> None:
    """The quickstart's own model, with a tokenizer as people have it."""
    plan(work, export__formats=["gguf"], dataset__validation_split=0.002, training__global_batch_size=4)
    shown = finished(start(work))
    found = metrics(work)
    assert found["perplexity_after"] < found["perplexity_before"]
    assert "held-out perplexity before" in shown and "base model" in shown
    assert (work / "axoc-output/final/model.safetensors").is_file()
    assert (work / "axoc-output/final/tokenizer.json").is_file()
    assert list((work / "axoc-output/tensorboard").rglob("events.out.tfevents.*"))
    for name in (
        "tokens_per_second",
        "step_seconds",
        "peak_allocated_bytes",
        "peak_reserved_bytes",
        "device_used_bytes",
    ):
        assert found[name] > 0
        assert name in found["predicted"]
    (written,) = json.loads((work / "axoc-output/exports/exports.json").read_text())["exports"].values()
    assert written["checked_by"].startswith("llama.cpp") and written["measured_on"] == "held-out rows"
    assert abs(written["measured"]["perplexity_difference"]) < 0.01
    assert "under `apache-2.0`" in (work / "axoc-output/exports/gguf/README.md").read_text()


CONSUMERS = {
    "safetensors": "transformers", "vllm": "transformers", "gguf": "llama.cpp", "onnx": "onnxruntime-genai",
    "ort": "onnxruntime", "openvino": "openvino",
}  # fmt: skip


@pytest.mark.combination(adapter="lora", strategy="ddp", export=("none", "pytorch", *CONSUMERS))
def test_a_second_input_works_by_changing_the_path_and_each_export_is_loaded_by_its_consumer(
    work: Path, small: dict[str, Any]
) -> None:
    plan(work, **small, dataset__validation_split=0.2, export__formats=list(CONSUMERS))
    shown = finished(start(work))
    assert metrics(work)["perplexity_after"] < metrics(work)["perplexity_before"]
    assert "llama.cpp" in shown and "onnxruntime-genai" in shown
    command = [sys.executable, "-m", "axoc", "export", "axoc-output", "--formats", "pytorch"]
    more = subprocess.run(command, cwd=work, capture_output=True, text=True)
    assert more.returncode == 0, more.stderr
    assert "torch.load" in more.stdout and "MB" in more.stdout
    found = json.loads((work / "axoc-output/exports/exports.json").read_text())["exports"]
    assert set(found) == {*CONSUMERS, "pytorch"}
    for name, row in found.items():
        assert row["checked_by"].startswith(CONSUMERS.get(name, "transformers"))
        assert row["measured_on"] == "held-out rows"
        assert abs(row["measured"]["perplexity_difference"]) < 0.01, name
        card = (work / "axoc-output/exports" / row["folder"] / "README.md").read_text()
        manifest = json.loads((work / "bundle/axoc.bundle.json").read_text())
        assert manifest["bundle_digest"] in card and "lora, rank 16, merged" in card
        assert "- Lock: `sha256:" in card and "- Spec: `sha256:" in card
    job = json.loads((work / "bundle/job.json").read_text())
    ran(of_job(job), *(of_job(job, name) for name in found))


STEPS = 60
"""Enough of them for a kill between two."""


def test_killed_half_way_resumed_and_started_again(work: Path, small: dict[str, Any]) -> None:
    plan(work, **small, dataset__validation_split=0.2, training__max_steps=STEPS, training__eval_steps=STEPS)
    process = start(work)
    wait_for(work / "axoc-output/checkpoint-4/.axoc-complete")
    for worker in workers(work):
        os.kill(worker, signal.SIGKILL)
    shown, _ = process.communicate(timeout=120)
    assert process.returncode == 14
    assert "was killed by SIGKILL" in shown and "--resume goes on" in shown.splitlines()[-1]
    assert not workers(work)
    refused = start(work)
    shown, _ = refused.communicate(timeout=120)
    assert refused.returncode == 1 and "unfinished run" in shown
    shown = finished(start(work, "--resume"))
    assert "resuming from" in shown
    found = metrics(work)
    assert found["steps"] == STEPS and found["steps_this_run"] < STEPS
    assert found["perplexity_after"] < found["perplexity_before"]
    assert "nothing to resume" in finished(start(work, "--resume"))
    again = finished(start(work))
    assert metrics(work)["steps_this_run"] == STEPS
    assert metrics(work)["eval_loss_after"] == pytest.approx(found["eval_loss_after"], abs=1e-4), again


def wait_for(path: Path, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.1)


def workers(work: Path) -> list[int]:
    """Processes that train this bundle: Python, under torchrun."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"axoc_runtime" in line and b"train" in line and os.fsencode(work / "bundle/job.json") in line:
            found.append(int(entry.name))
    return [pid for pid in found if b"torchrun" not in (Path("/proc") / str(pid) / "cmdline").read_bytes()]
