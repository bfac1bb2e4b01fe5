"""The quickstart on a Slurm of two nodes: planned, submitted, taken away half way, and finished."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from axoc.emit.targets.registry import target_files
from axoc.ir.plan import Plan
from cluster import slurm as slurm_here
from cluster import work as runs
from cluster.slurm import Cluster
from emit import plans

REASON = slurm_here.unavailable()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.skipif(REASON is not None, reason=f"no Slurm: {REASON}"),
]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="axoc-slurm-"))
    try:
        with slurm_here.cluster(folder) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def submit(slurm: Cluster, work: Path) -> str:
    """The job's number."""
    command = runs.launch_command(work)
    environment = runs.environment(work) | {k: slurm.environment[k] for k in ("SLURM_CONF", "PATH")}
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("Submitted batch job ")[1].split()[0]


def said(work: Path) -> str:
    return "\n".join(p.read_text() for p in sorted(work.glob("*.log")))


def test_requeued_half_way_it_goes_on_and_ends_as_if_left_alone(slurm: Cluster, tmp_path: Path) -> None:
    work = runs.make_work(tmp_path, "slurm")
    tested = slurm.run("sbatch", "--test-only", "config/slurm.sbatch", cwd=work / "bundle")
    assert "to start at" in tested and "n[1-2]" in tested
    job = submit(slurm, work)
    runs.wait_for(work / "axoc-output/checkpoint-2/.axoc-complete")
    slurm.run("scontrol", "requeue", job)
    slurm.wait(job, "PENDING")
    slurm.run("scontrol", "update", f"jobid={job}", "StartTime=now")  # Slurm itself waits two minutes
    assert slurm.wait(job, "COMPLETED", "FAILED", "CANCELLED") == "COMPLETED", said(work)
    assert slurm.field(job, "Restarts") == "1"
    shown, found = said(work), runs.metrics(work)
    assert shown.count("axoc: training: 2 x 1 processes on cpu") == 4, "two nodes, twice"
    assert "axoc: resuming from" in shown and "checkpoint-" in shown
    assert found["steps"] == runs.STEPS and found["steps_this_run"] < runs.STEPS
    assert list(runs.losses(work)) == list(range(1, runs.STEPS + 1))

    alone = tmp_path / "alone"
    alone.mkdir()
    undisturbed = runs.make_work(alone, "slurm")
    assert slurm.wait(submit(slurm, undisturbed), "COMPLETED", "FAILED") == "COMPLETED", said(undisturbed)
    assert runs.losses(work) == pytest.approx(runs.losses(undisturbed), abs=1e-6)
    assert found["eval_loss_after"] == pytest.approx(runs.metrics(undisturbed)["eval_loss_after"], abs=1e-6)


TRAINING = """\
#!/usr/bin/env bash
echo "$SLURM_NODEID $* restarts ${SLURM_RESTART_COUNT:-0} task ${SLURM_ARRAY_TASK_ID:-none}" >>"$SLURM_SUBMIT_DIR/calls"
"""


@pytest.fixture
def script(slurm: Cluster, tmp_path: Path) -> Callable[..., str]:
    """Submits the batch script of a plan with a launch.sh of a few lines; gives the job's number."""

    def call(body: str, **settings: object) -> str:
        plan = two_nodes(**settings)
        for file in target_files(plan):
            path = tmp_path / "bundle" / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
        launch = tmp_path / "bundle" / "launch.sh"
        launch.write_text(TRAINING + body)
        launch.chmod(0o755)
        shown = slurm.run("sbatch", "config/slurm.sbatch", "--an option", cwd=tmp_path / "bundle")
        return shown.split()[-1]

    return call


def two_nodes(name: str = "demo", **settings: object) -> Plan:
    plan = plans.cpu_ddp_lora()
    cluster = replace(plan.cluster, nodes=2, accelerators_per_node=1, cpu_cores_per_node=1, host_memory_bytes=1 << 30)
    target = replace(plan.request.target, type="slurm", **settings)
    return replace(plan, cluster=cluster, request=replace(plan.request, target=target, name=name))


def calls(tmp_path: Path) -> list[str]:
    return sorted((tmp_path / "bundle" / "calls").read_text().splitlines())


def test_each_node_runs_it_once_with_its_own_number(slurm: Cluster, script: Callable[..., str], tmp_path: Path) -> None:
    assert slurm.wait(script("exit 0\n"), "COMPLETED", "FAILED", seconds=60) == "COMPLETED"
    assert calls(tmp_path) == ["0 --an option restarts 0 task none", "1 --an option restarts 0 task none"]


def test_what_is_wrong_in_itself_is_not_tried_again(slurm: Cluster, script: Callable[..., str]) -> None:
    job = script('[ "$SLURM_NODEID" = 0 ] || exit 13\ntrap "exit 1" TERM\nsleep 60 & wait\n')
    assert slurm.wait(job, "COMPLETED", "FAILED", seconds=60) == "FAILED"
    assert slurm.field(job, "ExitCode") == "13:0" and slurm.field(job, "Restarts") == "0"


def test_training_that_failed_goes_back_into_the_queue_so_many_times(
    slurm: Cluster, script: Callable[..., str], tmp_path: Path
) -> None:
    job = script("exit 14\n", retries=1)
    again(slurm, job)
    assert slurm.wait(job, "FAILED", seconds=60) == "FAILED"
    assert slurm.field(job, "Restarts") == "1" and slurm.field(job, "ExitCode") == "14:0"
    assert sum("restarts 1" in line for line in calls(tmp_path)) == 2


def test_near_its_time_limit_it_goes_back_into_the_queue(slurm: Cluster, script: Callable[..., str]) -> None:
    job = script('[ "${SLURM_RESTART_COUNT:-0}" = 0 ] || exit 0\nsleep 100\n', time_limit_hours=2.0)
    slurm.wait(job, "RUNNING")
    time.sleep(1)
    slurm.run("scancel", "--batch", "--signal=USR1", job)  # as --signal=B:USR1@120 does two minutes before the end
    again(slurm, job)
    assert slurm.wait(job, "COMPLETED", "FAILED", seconds=60) == "COMPLETED"


def again(slurm: Cluster, job: str) -> None:
    """Waits until it is back in the queue, and has it start at once."""
    deadline = time.monotonic() + 60
    while slurm.field(job, "Restarts") == "0":
        assert time.monotonic() < deadline, "it was not requeued"
        time.sleep(0.2)
    slurm.wait(job, "PENDING")
    slurm.run("scontrol", "update", f"jobid={job}", "StartTime=now")


def test_an_array_tries_until_one_is_done(slurm: Cluster, script: Callable[..., str], tmp_path: Path) -> None:
    job = script('[ "$SLURM_ARRAY_TASK_ID" = 1 ] || exit 14\n', restart="array", retries=3)
    slurm.wait(f"{job}_1", "COMPLETED", seconds=120)
    deadline = time.monotonic() + 60
    while slurm.run("squeue", "--noheader", "--job", job).strip():
        assert time.monotonic() < deadline, "the rest of the array is still there"
        time.sleep(0.2)
    assert {line.split()[-1] for line in calls(tmp_path)} == {"0", "1"}


def test_sbatch_reads_texts_as_they_were_meant(slurm: Cluster, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    drawn = random.Random(seed)
    alphabet = "ab Z09.,:;-_=#'\"\\$`(){}[]<>|&*?!~%é"
    for _ in range(25):
        text = "".join(drawn.choice(alphabet) for _ in range(drawn.randrange(1, 30)))
        plan = two_nodes(name=text, options={"comment": text})
        (content,) = [f.content for f in target_files(plan) if f.path.endswith(".sbatch")]
        (tmp_path / "job").write_bytes(content)
        shown = slurm.run("sbatch", "--test-only", "--verbose", str(tmp_path / "job"), cwd=tmp_path)
        options = dict(line.removeprefix("sbatch: ").partition(" : ")[::2] for line in shown.splitlines())
        read = {name.strip(): value for name, value in options.items()}
        meant = " ".join(text.split())
        assert read.get("comment", "") == meant, (text, read)
        assert read["nodes"] == "2"


@pytest.mark.parametrize("golden", sorted((runs.ROOT / "golden").glob("*/targets/slurm")), ids=lambda p: p.parts[-3])
def test_every_golden_is_one_that_slurm_would_start(slurm: Cluster, golden: Path, tmp_path: Path) -> None:
    command = ["sbatch", "--test-only", "--partition=gpu", str(golden / "config/slurm.sbatch")]
    assert "to start at" in slurm.run(*command, cwd=tmp_path)
