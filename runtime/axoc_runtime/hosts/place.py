"""Where a host is among those of a run, as launch.sh's environment says, and how long hosts are waited for."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Final

from axoc_runtime.errors import EXIT_PREFLIGHT, RuntimeFailure

WAIT_VARIABLE: Final = "AXOC_HOST_WAIT_SECONDS"
WAIT_SECONDS: Final = 900.0
"""For the last host to come. torchrun's own figure: schedulers start hosts, and images are pulled, minutes apart."""
SILENT_VARIABLE: Final = "AXOC_HOST_SILENT_SECONDS"
SILENT_SECONDS: Final = 30.0
"""Without a beat, of which there is one a second, a host is lost. A switch that restarts takes less; users' 60 s, in which
the run is to have ended, leave as much again for its processes."""


@dataclass(frozen=True)
class Place:
    node: int | None
    """None where the first host is to number the others as they come (elastic rendezvous)."""
    nodes: int
    address: str
    """Of the first host, as all of them can resolve it."""
    port: int

    @property
    def is_first(self) -> bool:
        return self.node == 0 if self.node is not None else is_own(self.address)

    @property
    def endpoint(self) -> str:
        return f"{self.address}:{self.port}"


def place_of(nodes: int) -> Place | None:
    """None where the plan has one node. Raises RuntimeFailure where the environment is not that of several."""
    if nodes == 1:
        return None
    try:
        written = os.environ.get("NODE_RANK")
        node = None if written is None else int(written)
        place = Place(node, nodes, os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    except (KeyError, ValueError) as error:
        fix = f"set NODE_RANK (0 to {nodes - 1}), MASTER_ADDR and MASTER_PORT on each host"
        raise RuntimeFailure(f"the plan has {nodes} nodes, and the environment is not set: {error}", 2, fix) from None
    if node is not None and not 0 <= node < nodes:
        raise RuntimeFailure(f"NODE_RANK is {node}, the plan has {nodes} nodes", EXIT_PREFLIGHT, f"0 to {nodes - 1}")
    return place


def is_own(address: str) -> bool:
    """Whether it is one of this host's: only those can be bound."""
    try:
        found = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    for family, kind, protocol, _, where in found:
        with socket.socket(family, kind, protocol) as probe:
            try:
                probe.bind(where)
                return True
            except OSError:
                continue
    return False


def host_name() -> str:
    return socket.gethostname()


def seconds(variable: str, default: float) -> float:
    """A setting of the environment; the default where it is no number."""
    try:
        return float(os.environ.get(variable, default))
    except ValueError:
        return default
