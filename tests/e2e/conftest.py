"""A model small enough for seconds: random weights, a tokenizer of characters, sums to learn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forked
import pytest
from combinations import of_job, ran
from runtime.conftest import tokenizer as tokenizer  # the fixture, for these tests too
from runtime.jobs import write_job

Launch = Callable[..., "subprocess.CompletedProcess[str]"]
RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
HERE = Path(__file__).resolve().parent
SHARED = ("killed", "runs", "losses")
"""Fixtures that train for several tests of their module."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that two workers end together (``--dist loadfile --no-loadscope-reorder``): those whose
    tests share a run, then those that start processes that import all anew; what the server forks takes seconds."""
    items.sort(key=lambda item: _turn(item) if item.path.is_relative_to(HERE) else 0)


def _turn(item: pytest.Item) -> int:
    fixtures = getattr(item, "fixturenames", ())
    return 0 if set(SHARED) & set(fixtures) else 1 if "server" not in fixtures or "launched" in fixtures else 2


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"), tokenizer)


def make_tiny(folder: Path, tokenizer: Any) -> Path:
    """A Llama of 4 layers in a folder, as a user's own model would lie there."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=104, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def parameters(folder: Path) -> int:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        return sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118


def make_work(folder: Path, model: Path) -> Path:
    """A folder to work in: the model, and sums to learn."""
    (folder / "model").symlink_to(model)
    rows = [{"question": f"{a}+{b}?", "answer": str(a + b)} for a in range(10) for b in range(10)]
    (folder / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


@pytest.fixture
def work(tmp_path: Path, tiny: Path) -> Path:
    return make_work(tmp_path, tiny)


@pytest.fixture
def environment() -> dict[str, str]:
    return clean_environment()


def note(command: str, job: dict[str, Any]) -> None:
    """For docs/compatibility.md: what was trained, and what exports a run ended with."""
    if command == "train":
        ran(of_job(job))
    if command == "finish":
        ran(*(of_job(job, format_) for format_ in job["export"]["formats"]))


def patch_at_import(work: Path, environment: dict[str, str], module: str, code: str) -> None:
    """Runs ``code`` in every process just before ``module`` is imported for the first time."""
    sabotage = work / "sabotage"
    sabotage.mkdir()
    body = "".join(f"            {line}\n" for line in code.splitlines())
    (sabotage / "sitecustomize.py").write_text(
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        f"            sys.meta_path.remove(self)\n{body}"
        "sys.meta_path.insert(0, Finder())\n"
    )
    environment["PYTHONPATH"] = f"{sabotage}:{environment['PYTHONPATH']}"


def clean_environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AXOC_", "PYTHON"))}
    return kept | {"PYTHONPATH": str(RUNTIME), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}


@pytest.fixture(scope="session")
def server() -> Iterator[forked.Server]:
    """Of a worker, for all of its files: its ranks start in a moment."""
    made = forked.Server(forked.environment(), "trl.trainer.dpo_trainer", "trl.trainer.kto_trainer")
    yield made
    made.close()


@pytest.fixture
def runtime(work: Path, environment: dict[str, str], server: forked.Server) -> Launch:
    return forking(server, work, environment)


@pytest.fixture
def launched(work: Path, environment: dict[str, str], server: forked.Server) -> Launch:
    """``runtime``, but ``train`` under torchrun, which ends all ranks with one and sends away what they save."""
    fork, launch = forking(server, work, environment), launcher(work, environment)
    return lambda command, *options, **job: (launch if command == "train" else fork)(command, *options, **job)


def forking(server: forked.Server, work: Path, environment: dict[str, str]) -> Launch:
    """As ``launcher``, without torchrun and without the seconds that imports take."""

    def call(command: str, *options: str, **changes: Any) -> subprocess.CompletedProcess[str]:
        job, told = write_job(work, **changes), (work / "stdout", work / "stderr")
        for file in told:
            file.write_text("")
        server.start(job, told[0], *options, command=command, errors=told[1], environment=environment)
        code = next((code for code in server.wait() if code), 0)
        return ended(command, job, subprocess.CompletedProcess(command, code, *(file.read_text() for file in told)))

    return call


def launcher(work: Path, environment: dict[str, str]) -> Launch:
    """Runs a command of the runtime on a job; ``train`` under torchrun with the job's processes."""

    def call(command: str, *options: str, **changes: Any) -> subprocess.CompletedProcess[str]:
        job = write_job(work, **changes)
        line = [sys.executable, "-m", "axoc_runtime", command, str(job), *options]
        if command == "train":
            processes = json.loads(job.read_text())["distributed"]["processes_per_node"]
            launch = ["-m", "axoc_runtime.torchrun", "--standalone", "--nproc_per_node", str(processes)]
            line[1:1] = launch
        done = subprocess.run(line, env=environment, cwd=work, capture_output=True, text=True, timeout=600)
        return ended(command, job, done)

    return call


def ended(command: str, job: Path, done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    if done.returncode == 0:
        note(command, json.loads(job.read_text()))
    return done
