"""Two hosts of two processes each, made of network namespaces, run launch.sh as a user would: what happens to one of them
is told by the other, by name, and in time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.netns import Host, ended, hosts, of, unavailable
from e2e.conftest import clean_environment, make_tiny, make_work
from runtime.conftest import make_tokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.skipif(unavailable() is not None, reason=str(unavailable())),
]
STEPS, SAVED = 200, 50
NAMED_WITHIN_SECONDS = 60
LATE_SECONDS = 20
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "hosts",
    "model": {"id": "model", "dtype": "float32"},
    "dataset": {"path": "data.jsonl", "validation_split": 0.1, "max_seq_length": 64, "packing": False},
    "training": {
        "max_steps": STEPS, "global_batch_size": 8, "micro_batch_size": 1, "learning_rate": 1.0e-4, "logging_steps": 1,
        "eval_steps": STEPS, "save_steps": SAVED, "gradient_checkpointing": "none",
    },
    "eval_metrics": ["perplexity"],
    "distributed": {"type": "ddp", "mixed_precision": "no"},
    "inventory": "cpu:2x2",
    "tracking": [],
    "output_dir": "out",
}  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a bundle for two hosts. Rows are prepared by the first run, and kept."""
    tiny = make_tiny(tmp_path_factory.mktemp("tiny"), make_tokenizer())
    folder = tmp_path_factory.mktemp("two hosts")
    make_work(folder, tiny)
    plan(folder, SPEC, "bundle")
    return folder


def plan(folder: Path, spec: dict[str, Any], out: str) -> None:
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    line = [sys.executable, "-m", "axoc", "plan", "spec.yaml", "--out", out]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def two(work: Path) -> Iterator[tuple[Host, Host]]:
    for entry in (work / "out").iterdir() if (work / "out").is_dir() else ():
        if entry.name != ".prepared":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    with hosts(2) as (first, second):
        yield first, second


def launch(work: Path, host: Host, *options: str, bundle: str = "bundle", **more: Any) -> subprocess.Popen[str]:
    line = [str(work / bundle / "launch.sh"), "--no-install", "--python", sys.executable, *options]
    environment = clean_environment() | {"XDG_CACHE_HOME": str(work / "cache")}
    return host.start(line, of(host, environment, 2, **{"AXOC_PREFLIGHT_SLOW": "off", **more}), work)


def wait_for_checkpoint(work: Path, running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while not list((work / "out").glob("checkpoint-*/.axoc-complete")):
        assert running.poll() is None, running.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.02)


def losses(work: Path) -> dict[int, float]:
    """Of each step; of one that was made twice the later."""
    lines = [json.loads(line) for line in (work / "out" / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


Run = tuple[list[str], float, dict[int, float], float]


@pytest.fixture(scope="module")
def uncut(work: Path) -> Run:
    """A whole run, to which the second host comes late: outputs, seconds until it came, losses, perplexity."""
    with hosts(2) as (first, second):
        running = [launch(work, first, AXOC_PREFLIGHT_SLOW="warn")]
        time.sleep(LATE_SECONDS)
        assert running[0].poll() is None, "the first host has not waited"
        running.append(launch(work, second, AXOC_PREFLIGHT_SLOW="warn"))
        told = [ended(process, 200) for process in running]
    assert [code for code, _, _ in told] == [0, 0], told
    perplexity = json.loads((work / "out" / "metrics.json").read_text())["perplexity_after"]
    return [text for _, text, _ in told], LATE_SECONDS, losses(work), perplexity


def test_a_late_host_is_waited_for(uncut: Run) -> None:
    (first, second), _, steps, perplexity = uncut
    assert "axoc: waiting for node 1 of 2; here: host0 (node 0), 15 s so far" in first
    assert sorted(steps) == list(range(1, STEPS + 1)) and perplexity < 110
    assert "axoc: done" in first and "axoc: done" in second


def test_preflight_shows_what_each_host_has(uncut: Run) -> None:
    first, second = uncut[0]
    rows = [line.split() for line in first.splitlines() if "2 x cpu" in line and "host" in line]
    assert [row[:2] for row in rows] == [["0", "host0"], ["1", "host1"]]
    assert "all-reduce over 4 ranks: " in first and "the plan counts on 1.0 GB/s" in first
    for told in (first, second):
        assert "axoc: 2 x cpu on each of 2 nodes as planned" in told


def test_a_link_that_is_cut(work: Path, uncut: Run, two: tuple[Host, Host]) -> None:
    running = [launch(work, host) for host in two]
    wait_for_checkpoint(work, running[0])
    two[1].cut()
    began = time.monotonic()
    told = [ended(process, NAMED_WITHIN_SECONDS) for process in running]
    assert time.monotonic() - began < NAMED_WITHIN_SECONDS
    for other, (code, text, _) in zip(reversed(two), told, strict=True):
        assert code == 21, text
        assert f"axoc: lost {other.name} (node {other.number}): nothing was heard of it for 3" in text
        assert "Traceback" not in text and "--resume goes on" in text
    assert [host.processes() for host in two] == [[], []]
    assert (work / "out" / "checkpoint-50" / ".axoc-complete").is_file()
    two[1].mend()
    again = [ended(process, 200) for process in [launch(work, host, "--resume") for host in two]]
    assert [code for code, _, _ in again] == [0, 0], again
    assert "axoc: resuming from " in again[0][1] and "checkpoint-50" in again[0][1]
    assert losses(work) == pytest.approx(uncut[2], abs=2e-4)
    perplexity = json.loads((work / "out" / "metrics.json").read_text())["perplexity_after"]
    assert perplexity == pytest.approx(uncut[3], rel=1e-5)


def test_a_host_that_dies(work: Path, uncut: Run, two: tuple[Host, Host]) -> None:
    """The first one, on which all others depend."""
    running = [launch(work, host) for host in two]
    wait_for_checkpoint(work, running[0])
    two[0].kill()
    code, told, seconds = ended(running[1], NAMED_WITHIN_SECONDS)
    assert code == 21 and seconds < NAMED_WITHIN_SECONDS / 2
    assert "axoc: lost host0 (node 0): what ran there is gone: killed, or its machine restarted" in told
    assert two[1].processes() == [] and (work / "out" / "checkpoint-50" / ".axoc-complete").is_file()


def test_a_host_that_never_comes(work: Path, two: tuple[Host, Host]) -> None:
    """Neither reaches the other, so each misses it."""
    two[1].cut()
    running = [launch(work, host, AXOC_HOST_WAIT_SECONDS=4) for host in two]
    (first, first_told, _), (second, second_told, _) = (ended(process, 60) for process in running)
    assert (first, second) == (21, 21)
    assert "axoc: missing after 4 s: node 1 of 2; here: host0 (node 0)" in first_told
    assert "axoc: node 0 at 198.18.0.1:29500 was not reached from host1 within 4 s: " in second_told


CLOCK = "import time\nreal = time.time\ntime.time = lambda: real() + 60\n"
"""No namespace has a wall clock of its own."""


def test_hosts_that_differ(work: Path, two: tuple[Host, Host]) -> None:
    """Another bundle, package, clock, and a folder of its own that is too small: all is said of the second host at once."""
    plan(work, SPEC | {"training": SPEC["training"] | {"learning_rate": 2.0e-4}}, "other bundle")
    (work / "out").mkdir(exist_ok=True)
    (work / "sabotage" / "accelerate-9.9.dist-info").mkdir(parents=True)
    (work / "sabotage" / "accelerate-9.9.dist-info" / "METADATA").write_text("Name: accelerate\nVersion: 9.9\n")
    (work / "sabotage" / "sitecustomize.py").write_text(CLOCK)
    two[1].own_folder = work / "out"
    first = launch(work, two[0], "--preflight")
    second = launch(work, two[1], "--preflight", bundle="other bundle", PYTHONPATH=str(work / "sabotage"))
    for code, told, _ in (ended(process, 100) for process in (first, second)):
        assert code == 12, "of all that is found the host's own disk comes first"
        lines = [line.split(maxsplit=4) for line in told.splitlines() if line.startswith("  error")]
        assert all(line[2:4] == ["host1", "(node"] for line in lines), told
        found = {(line[1], line[4].removeprefix("1)").strip().split("  ")[0][:32]) for line in lines}
        expected = {
            ("12", "0.0 GiB are free in"), ("19", "the bundle is "), ("19", "accelerate 9.9, most others' 1."),
            ("19", "its clock is 60.0 s ahead"), ("19", "the output folder "),
        }  # fmt: skip
        assert len(found) == len(expected), told
        assert all(any(c == code and what.startswith(part) for c, what in found) for code, part in expected), told


def test_a_slow_link_is_named(work: Path, two: tuple[Host, Host]) -> None:
    """What the second host sends is slowed down, and what it receives is not."""
    two[1].limit("20mbit")
    running = [launch(work, host, "--preflight", AXOC_PREFLIGHT_SLOW="fail") for host in two]
    for code, told, _ in (ended(process, 200) for process in running):
        assert code == 22, told
        lines = [" ".join(line.split()) for line in told.splitlines() if line.startswith("  error 22")]
        assert any(
            "all hosts all-reduce over all ranks: 2." in line and "MB/s bus bandwidth" in line for line in lines
        ), told
        assert any("host1 (node 1) sends 2." in line for line in lines), told
        assert not any("host0 (node 0) sends" in line or "receives" in line for line in lines), told


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a slow host and a fast one need two cores")
def test_a_slow_host_is_named(work: Path, two: tuple[Host, Host]) -> None:
    """Its core has other things to do."""
    fast, slow = (str(core) for core in sorted(os.sched_getaffinity(0))[:2])
    for _ in range(12):
        two[1].start(["taskset", "-c", slow, sys.executable, "-c", "while True: pass"], os.environ, work)
    running = []
    for host, core in zip(two, (fast, slow), strict=True):
        os_launch = [
            "taskset",
            "-c",
            core,
            str(work / "bundle" / "launch.sh"),
            "--no-install",
            "--python",
            sys.executable,
        ]
        environment = of(host, clean_environment(), 2, AXOC_PREFLIGHT_SLOW="fail")
        running.append(host.start([*os_launch, "--preflight"], environment, work))
    for code, told, _ in [ended(process, 300) for process in running]:
        assert code == 22, told
        named = [" ".join(line.split()) for line in told.splitlines() if "a matrix product takes" in line]
        assert named and all(line.startswith("error 22 host1 (node 1), rank ") for line in named), told
