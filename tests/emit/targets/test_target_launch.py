"""The same launch.sh for every target: it submits where it is started, and runs where the engine has put it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axoc.facts.targets import TARGETS
from emit.targets.conftest import Launch

Logged = Callable[[], list[str]]
Commands = Callable[..., Path]
WORKER: dict[str, dict[str, str]] = {
    "torchrun": {"NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"},
    "slurm": {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NODEID": "1", "SLURM_NNODES": "2"}
    | {"SLURM_JOB_NODELIST": "n[1-2]", "AXOC_SLURM_TASK": "1"},
    "kubernetes": {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "PET_NNODES": "2", "PET_NODE_RANK": "1"}
    | {"PET_MASTER_ADDR": "10.0.0.1", "PET_MASTER_PORT": "29500"},
    "skypilot": {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"},
    "ray": {"AXOC_RAY_WORKER": "1", "NODE_RANK": "1", "NNODES": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"},
}
SCONTROL = """#!/bin/sh
case "$*" in
  "show hostnames n[1-2]") printf 'n1\\nn2\\n' ;;
  "show node n1") printf 'NodeName=n1 Arch=x86_64\\n   NodeAddr=10.0.0.1 NodeHostName=login Port=6818\\n' ;;
  *) exit 1 ;;
esac
"""


@pytest.mark.parametrize("kind", TARGETS)
def test_on_a_worker_it_trains_with_the_rank_the_engine_gave(
    launch: Launch, logged: Logged, commands: Commands, kind: str
) -> None:
    commands(scontrol=SCONTROL)
    done = launch(kind, **WORKER[kind])
    assert done.returncode == 0, done.stderr
    port = 20007 if kind == "slurm" else 29500
    where = f"--nnodes|2|--node_rank|1|--rdzv_backend|static|--rdzv_endpoint|10.0.0.1:{port}|--rdzv_id|axoc"
    assert [line for line in logged() if line.startswith("torchrun")] == [f"torchrun|{where}|--nproc_per_node|8"]
    assert "finish|True" not in logged(), "the first node does"


def test_pods_of_a_job_set_are_told_by_name(launch: Launch, logged: Logged) -> None:
    pod = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "JOB_COMPLETION_INDEX": "0", "NODE_RANK": "0", "NNODES": "2"}
    assert launch("kubernetes", **pod, MASTER_ADDR="demo-node-0-0.demo", MASTER_PORT="29500").returncode == 0
    assert any("--node_rank|0" in line and "demo-node-0-0.demo:29500" in line for line in logged())
    assert logged()[-1] == "finish|True"


SUBMISSION = {
    "slurm": "sbatch config/slurm.sbatch --no-install --python",
    "kubernetes": "kubectl create -f config/trainjob.yaml",
    "skypilot": "sky jobs launch --yes --detach-run --env AXOC_BUNDLE=the\\ bundle",
    "ray": "config/ray_train.py",
}


@pytest.mark.parametrize("rendezvous", ["static", "c10d"])
def test_a_dry_run_of_torchrun_shows_what_each_host_would_run(launch: Launch, logged: Logged, rendezvous: str) -> None:
    done = launch("torchrun", "--dry-run", rendezvous=rendezvous)
    assert done.returncode == 0, done.stderr
    assert f"--nnodes 2 --{'node_rank' if rendezvous == 'static' else 'rdzv_backend c10d'}" in done.stdout
    assert "MASTER_ADDR is not set" in done.stdout + done.stderr and "\\<MASTER_ADDR\\>" in done.stdout
    assert logged() == []
    assert launch("torchrun", rendezvous=rendezvous).returncode == 2, "only a dry run does without"


@pytest.mark.parametrize("kind", SUBMISSION)
def test_a_dry_run_shows_what_would_be_submitted(launch: Launch, logged: Logged, kind: str) -> None:
    done = launch(kind, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert SUBMISSION[kind] in done.stdout
    assert "cd " in done.stdout and "demo" in done.stdout, "the file itself is shown"
    assert logged() == []


@pytest.mark.parametrize(
    ("kind", "missing", "more"),
    [("slurm", "sbatch", "login node"), ("kubernetes", "kubectl", "kubeconfig"), ("skypilot", "sky", "pip install")],
)
def test_a_missing_command_line_says_what_to_do(
    launch: Launch, tmp_path: Path, kind: str, missing: str, more: str
) -> None:
    (tmp_path / "others").mkdir()
    for tool in {p.name: p for d in ("/usr/bin", "/bin") for p in Path(d).iterdir()}.values():
        if tool.name != missing:
            (tmp_path / "others" / tool.name).symlink_to(tool)
    done = launch(kind, PATH=str(tmp_path / "others"))
    assert done.returncode == 11
    assert f"{missing} is not there" in done.stderr and more in done.stderr and "target: torchrun" in done.stderr


def test_without_ray_it_says_so(launch: Launch) -> None:
    done = launch("ray", AXOC_RAY_PYTHON="/bin/false")
    assert done.returncode == 11 and "AXOC_RAY_PYTHON" in done.stderr


def test_slurm_takes_the_options_along(launch: Launch, logged: Logged, commands: Commands, tmp_path: Path) -> None:
    commands(sbatch=None)
    done = launch("slurm", "--fresh", "--preflight", f"--base-dir={tmp_path / 'my work'}")
    assert done.returncode == 0, done.stderr
    (line,) = logged()
    assert line.startswith("sbatch|config/slurm.sbatch|--preflight|--fresh|--no-install|--python|")
    assert line.endswith(f"|--base-dir|{(tmp_path / 'my work').resolve()}")


def test_the_environment_is_made_where_it_is_asked_for(launch: Launch, logged: Logged, commands: Commands) -> None:
    commands(sbatch=None)
    assert launch("slurm", "--install").returncode == 0
    assert logged() == []


@pytest.mark.parametrize(
    "again",
    [
        {"SLURM_RESTART_COUNT": "1"},
        {"SLURM_RESTART_COUNT": "0", "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_MIN": "0"},
    ],
)
def test_a_job_that_starts_again_resumes_and_deletes_nothing(
    launch: Launch, logged: Logged, commands: Commands, again: dict[str, str]
) -> None:
    commands(scontrol=SCONTROL)
    launch("slurm", "--fresh", **WORKER["slurm"])
    assert "train|--fresh|True" in logged()
    launch("slurm", "--fresh", **WORKER["slurm"], **again)
    assert logged()[-1] == "train|--resume|True"


def test_in_an_allocation_there_is_nothing_to_queue(launch: Launch, logged: Logged, commands: Commands) -> None:
    commands(srun=None)
    inside = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "8"}
    done = launch("slurm", **inside)
    assert done.returncode == 0, done.stderr
    (line,) = logged()
    assert line.startswith("srun|--nodes|2|--ntasks|2|--ntasks-per-node|1|--cpus-per-task|8|--kill-on-bad-exit=1|")
    assert "/the bundle/launch.sh|--no-install|" in line


KINDS = '#!/bin/sh\ncase $1 in api-resources) printf "%b" "$KINDS" ;; *) printf "%s " "$@" >>"$FAKE_LOG" ;; esac\n'


@pytest.mark.parametrize(
    ("kinds", "file"),
    [
        ("jobsets.jobset.x-k8s.io\\ntrainjobs.trainer.kubeflow.org\\n", "config/trainjob.yaml"),
        ("pods\\njobsets.jobset.x-k8s.io\\n", "config/jobset.yaml"),
    ],
)
def test_what_the_cluster_knows_is_created(
    launch: Launch, logged: Logged, commands: Commands, kinds: str, file: str
) -> None:
    commands(kubectl=KINDS)
    assert launch("kubernetes", KINDS=kinds).returncode == 0
    assert logged() == [f"create -f {file} "]


def test_a_cluster_that_knows_neither_or_refuses(launch: Launch, logged: Logged, commands: Commands) -> None:
    commands(kubectl=KINDS)
    done = launch("kubernetes", KINDS="pods\\n")
    assert done.returncode == 12 and "neither TrainJob nor JobSet" in done.stderr and logged() == []
    commands(kubectl='#!/bin/sh\n[ "$1" = api-resources ] && echo jobsets.jobset.x-k8s.io || exit 1\n')
    done = launch("kubernetes")
    assert done.returncode == 12 and "kubectl delete -f" in done.stderr
    commands(kubectl="#!/bin/sh\nexit 1\n")
    assert "reaches no cluster" in launch("kubernetes").stderr


@pytest.mark.parametrize("kind", ["kubernetes", "skypilot", "ray"])
def test_engines_that_start_again_by_themselves_cannot_start_anew(launch: Launch, kind: str) -> None:
    done = launch(kind, "--fresh")
    assert done.returncode == 2 and "--fresh" in done.stderr


def test_skypilot_copies_the_folder_that_paths_count_from(
    launch: Launch, logged: Logged, commands: Commands, tmp_path: Path
) -> None:
    commands(sky='#!/bin/sh\npwd >>"$FAKE_LOG"; printf "%s|" "$@" >>"$FAKE_LOG"\n')
    for options in ([], ["--resume"]):
        done = launch("skypilot", *options)
        assert done.returncode == 0, done.stderr
    folder, arguments = logged()[:2]
    assert folder == str(tmp_path / "my work")
    assert arguments.startswith("jobs|launch|--yes|--detach-run|--env|AXOC_BUNDLE=the bundle|")


class TestElastic:
    """torchrun's c10d rendezvous: no ranks are given, and a lost host may be replaced."""

    def call(self, launch: Launch, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return launch("torchrun", *options, rendezvous="c10d", retries=5, **more)

    def test_hosts_need_only_where_to_meet(self, launch: Launch, logged: Logged) -> None:
        assert self.call(launch).returncode == 2
        done = self.call(launch, MASTER_ADDR="127.0.0.1", MASTER_PORT="29401")
        assert done.returncode == 0, done.stderr
        where = "--nnodes|2|--rdzv_backend|c10d|--rdzv_endpoint|127.0.0.1:29401|--rdzv_id|axoc|--max_restarts|5"
        assert f"torchrun|{where}|--nproc_per_node|8" in logged()
        assert "train|--resume|True" in logged(), "one that takes another's place goes on"
        assert logged()[-1] == "finish|True", "on the host where they meet"

    def test_only_the_host_where_they_meet_finishes(self, launch: Launch, logged: Logged) -> None:
        assert self.call(launch, MASTER_ADDR="192.0.2.1").returncode == 0
        assert logged()[-1] == "train|--resume|True"

    def test_starting_anew_is_refused(self, launch: Launch) -> None:
        done = self.call(launch, "--fresh", MASTER_ADDR="127.0.0.1")
        assert done.returncode == 2 and "--fresh" in done.stderr
