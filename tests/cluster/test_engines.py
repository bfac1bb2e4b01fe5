"""Files of targets read by the engines' own code, and Ray running a bundle on two workers, one of which is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import work as runs

ENGINES = runs.ROOT / ".venv-engines"
"""Made by tools/install_engines.sh."""
CHECK = Path(__file__).with_name("check_engines.py")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.skipif(not (ENGINES / ".complete").exists(), reason="no .venv-engines: tools/install_engines.sh"),
]
CHECKED = ("kubernetes/config/trainjob.yaml", "kubernetes/config/jobset.yaml", "skypilot/config/skypilot.yaml")
TARGETS = ("kubernetes", "ray", "skypilot", "slurm", "torchrun")


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HOME": str(folder)}  # SkyPilot keeps notes there
    command = [str(ENGINES / "bin/python"), str(CHECK), str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def goldens(tmp_path: Path) -> Path:
    return shutil.copytree(runs.ROOT / "golden", tmp_path / "golden")


def test_every_golden_is_valid_to_its_engines(goldens: Path) -> None:
    plans = [folder for folder in sorted(goldens.iterdir()) if folder.is_dir()]
    assert [tuple(sorted(p.name for p in (plan / "targets").iterdir())) for plan in plans] == [TARGETS] * len(plans)
    done = check(goldens)
    assert (done.returncode, done.stdout.split("\n")[0]) == (0, f"{len(plans) * len(CHECKED)} files"), done.stdout


@pytest.mark.parametrize(
    ("file", "right", "wrong", "said"),
    [
        ("kubernetes/config/trainjob.yaml", "numProcPerNode:", "processesPerNode:", "no such keys: .spec.trainer"),
        ("kubernetes/config/jobset.yaml", "maxRestarts:", "mostRestarts:", "no such keys: .spec.failurePolicy"),
        (
            "kubernetes/config/jobset.yaml",
            "mountPath:",
            "mount:",
            "ValidationError: 'mountPath' is a required property",
        ),
        ("skypilot/config/skypilot.yaml", "disk_size:", "disk_space:", "disk_space"),
    ],
)
def test_what_an_engine_does_not_know_is_found(goldens: Path, file: str, right: str, wrong: str, said: str) -> None:
    path = goldens / "quickstart__cpu" / "targets" / file
    path.write_text(path.read_text().replace(right, wrong))
    done = check(goldens)
    complaints = [line.removeprefix(f"{path}: ") for line in done.stdout.splitlines()[1:]]
    assert done.returncode == 1 and any(said in complaint for complaint in complaints), done.stdout


@pytest.fixture
def ray_cluster() -> Iterator[dict[str, str]]:
    """A Ray of two cores on this machine: the environment that finds it. Its sockets' paths must be short."""
    folder = Path(tempfile.mkdtemp(prefix="axoc-ray-"))
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"RAY_USAGE_STATS_ENABLED": "0"}
    command = [str(ENGINES / "bin/ray"), "start", "--head", "--block", "--num-cpus=2", "--num-gpus=0", "--port=0"]
    command += ["--include-dashboard=false", f"--temp-dir={folder}", "--node-ip-address=127.0.0.1"]
    command += [f"--object-store-memory={100 << 20}"]
    log = (folder / "log").open("wb")
    process = subprocess.Popen(command, env=kept, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        found = folder / "ray_current_cluster"
        runs.wait_for(found, 120)
        yield {"RAY_ADDRESS": found.read_text().strip(), "AXOC_RAY_PYTHON": str(ENGINES / "bin/python")}
    finally:
        process.terminate()  # it ends what it has started
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def test_ray_starts_a_lost_worker_again_and_the_run_goes_on(ray_cluster: dict[str, str], tmp_path: Path) -> None:
    work = runs.make_work(tmp_path, "ray")
    process = subprocess.Popen(
        runs.launch_command(work), env=runs.environment(work) | ray_cluster, cwd="/", text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        runs.wait_for(work / "axoc-output/checkpoint-2/.axoc-complete", running=process)
        os.kill(training(work)[0], signal.SIGKILL)
        told, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, told
    assert "axoc: training: 2 x 1 processes on cpu" in told and "axoc: resuming from" in told, told
    assert runs.metrics(work)["steps_this_run"] < runs.STEPS
    assert list(runs.losses(work)) == list(range(1, runs.STEPS + 1))


def training(work: Path) -> list[int]:
    """Processes that train this folder's bundle."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "axoc_runtime.torchrun" in line and any(str(work) in part for part in line):
            found.append(int(process.name))
    assert found, "nothing trains"
    return found
