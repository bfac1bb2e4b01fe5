"""Hosts made of network namespaces: each has its own interface, address and host name, and they share a bridge.

Addresses are of 198.18.0.0/15, which is set aside for tests of networks (RFC 2544), and exist only inside the namespaces.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PORT = 29500
SWITCH = "axoc-switch"
"""The bridge lies in a namespace of its own: nothing of it is seen outside."""


def unavailable() -> str | None:
    """Why hosts cannot be made here; None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [name for name in ("ip", "unshare", "tc") if shutil.which(name) is None]:
        return f"not installed: {', '.join(missing)} (iproute2, util-linux)"
    name = f"axoc-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return None if made.returncode == 0 else f"no network namespaces here: {made.stderr.strip()}"


@dataclass
class Host:
    number: int
    namespace: str
    own_folder: Path | None = None
    """One that the others do not see as this host does: a small disk of its own."""
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"host{self.number}"

    @property
    def address(self) -> str:
        return f"198.18.0.{self.number + 1}"

    @property
    def link(self) -> str:
        """Inside the host."""
        return "net0"

    def inside(self, command: Sequence[str]) -> list[str]:
        """With this host's network and name. The name is no argument of a shell's text."""
        named = ["unshare", "--uts", "--mount", "sh", "-c", 'hostname "$0" && exec "$@"', self.name]
        own = ["sh", "-c", 'mount -t tmpfs -o size=64k own "$0" && exec "$@"', str(self.own_folder)]
        return ["ip", "netns", "exec", self.namespace, *named, *(own if self.own_folder else []), *command]

    def start(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> subprocess.Popen[str]:
        """stderr goes into stdout, so that lines keep their order."""
        process = subprocess.Popen(
            self.inside(command), env=dict(environment), cwd=folder, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def processes(self) -> list[int]:
        found = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def kill(self) -> None:
        """All that runs there, as when the power fails."""
        deadline = time.monotonic() + 20
        while (pids := self.processes()) and time.monotonic() < deadline:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def cut(self) -> None:
        """Pulls the plug at the switch: this host sees no more packets, and no sign of it."""
        _ip("-n", f"{SWITCH}-{os.getpid()}", "link", "set", f"port{self.number}", "down")

    def mend(self) -> None:
        _ip("-n", f"{SWITCH}-{os.getpid()}", "link", "set", f"port{self.number}", "up")

    def limit(self, rate: str) -> None:
        """Of what this host sends, e.g. ``20mbit``."""
        _run("tc", "-n", self.namespace, "qdisc", "add", "dev", self.link, "root", "tbf", "rate", rate, "burst", "16kb",
             "latency", "500ms")  # fmt: skip


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """Nothing is left of them, however the block ends."""
    switch = f"{SWITCH}-{os.getpid()}"
    made = [Host(number, f"axoc-{number}-{os.getpid()}") for number in range(count)]
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge0", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge0", "up")
        for host in made:
            _plug(switch, host)
        yield made
    finally:
        for host in made:
            host.kill()
            for process in host.started:
                with suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=10)
        for namespace in [*(host.namespace for host in made), switch]:
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)


def _plug(switch: str, host: Host) -> None:
    port = f"port{host.number}"
    _ip("netns", "add", host.namespace)
    _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", host.link, "netns", host.namespace)
    _ip("-n", switch, "link", "set", port, "master", "bridge0")
    _ip("-n", switch, "link", "set", port, "up")
    _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", host.link)
    for link in ("lo", host.link):
        _ip("-n", host.namespace, "link", "set", link, "up")


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def ended(process: subprocess.Popen[str], seconds: float) -> tuple[int, str, float]:
    """Exit code, what it told, and how long it still took."""
    began = time.monotonic()
    told, _ = process.communicate(timeout=seconds)
    return process.returncode, told, time.monotonic() - began


def of(host: Host, environment: Mapping[str, str], count: int, **more: Any) -> dict[str, str]:
    """What each host's launch.sh finds in its environment."""
    return {
        **environment, "NODE_RANK": str(host.number), "NNODES": str(count), "MASTER_ADDR": "198.18.0.1",
        "MASTER_PORT": str(PORT), **{k: str(v) for k, v in more.items()},
    }  # fmt: skip
