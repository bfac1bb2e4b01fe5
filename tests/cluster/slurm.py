"""A Slurm of four nodes on this machine: Debian's slurmctld and four slurmd, which differ in their names and ports.

No daemon of the system is used or touched: all state is in one folder, and nothing is left when it is closed.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
NODES = ("n1", "n2", "n3", "n4")
CONFIGURATION = """\
ClusterName=axoc
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MailProg=/bin/true
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
KillWait=5
SlurmdParameters=config_overrides
GresTypes=gpu
{nodes}
PartitionName=cpu Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=n1,n2,n3,n4 MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=256 RealMemory=4000000 Gres=gpu:8"
"""They promise what the machine does not have: Slurm only counts it here, and ends nothing for it."""


def unavailable() -> str | None:
    """Why there is no Slurm here; None where there is."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=search_path()) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: slurmctld slurmd slurm-client)"
    return None if Path("/usr/lib/x86_64-linux-gnu/slurm-wlm/auth_none.so").exists() else "Slurm has no auth/none here"


def search_path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class Cluster:
    """Its commands, with its own configuration."""

    def __init__(self, folder: Path) -> None:
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": search_path()}

    def run(self, *command: str, cwd: Path | None = None) -> str:
        done = subprocess.run(command, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def field(self, job: str, name: str) -> str:
        """Of ``scontrol show job``."""
        words = dict(w.partition("=")[::2] for w in self.run("scontrol", "show", "job", job).split())
        return words[name]

    def wait(self, job: str, *states: str, seconds: float = 600) -> str:
        deadline = time.monotonic() + seconds
        while (state := self.field(job, "JobState")) not in states:
            assert time.monotonic() < deadline, f"job {job} is {state}, not {states}"
            time.sleep(0.2)
        return state


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Ready for jobs. ``folder``: short, of its own."""
    for name in ("state", *NODES):
        (folder / name).mkdir(parents=True)
    port, *ports = free_ports(1 + len(NODES))
    nodes = "\n".join(NODE.format(name=name, port=its) for name, its in zip(NODES, ports, strict=True))
    text = CONFIGURATION.format(folder=folder, user=getpass.getuser(), port=port, nodes=nodes)
    (folder / "slurm.conf").write_text(text)
    for number in range(8):
        (folder / f"gpu{number}").touch()  # without files a node says that it has none
    (folder / "gres.conf").write_text(f"NodeName={','.join(NODES)} Name=gpu File={folder}/gpu[0-7]\n")
    slurm = Cluster(folder)
    commands = [["slurmctld", "-D"], *(["slurmd", "-D", "-N", node] for node in NODES)]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            log = (folder / f"{'-'.join(command)}.log").open("wb")
            started.append(subprocess.Popen(command, env=slurm.environment, stdout=log, stderr=subprocess.STDOUT))
        until_idle(slurm, folder)
        yield slurm
    finally:
        close(slurm, started)


def until_idle(slurm: Cluster, folder: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        asked = ["sinfo", "--noheader", "--Node", "--partition", "gpu", "--format", "%T"]
        shown = subprocess.run(asked, env=slurm.environment, capture_output=True, text=True)
        if shown.stdout.split() == ["idle"] * len(NODES):
            return
        logs = "\n".join(p.read_text()[-1500:] for p in folder.glob("*.log"))
        assert time.monotonic() < deadline, f"{shown.stdout}{shown.stderr}\n{logs}"
        time.sleep(0.2)


def close(slurm: Cluster, started: list[subprocess.Popen[bytes]]) -> None:
    """Jobs first, which the daemons end; then the daemons."""
    user = ["scancel", "--user", getpass.getuser()]
    subprocess.run(user, env=slurm.environment, capture_output=True, timeout=60)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        left = subprocess.run(["squeue", "--noheader"], env=slurm.environment, capture_output=True, text=True)
        if not left.stdout.strip():
            break
        time.sleep(0.2)
    for daemon in started:
        daemon.terminate()
    for daemon in started:
        try:
            daemon.wait(timeout=20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
