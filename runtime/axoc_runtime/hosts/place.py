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


DYNAMIC_VARIABLE: Final = "AXOC_DYNAMIC_HOSTS"
"""Set by launch.sh where torchrun waits for another host in a lost one's place, and starts the ranks anew: hosts then have no
fixed numbers, come when they like, and no loss of one ends the run."""


@dataclass(frozen=True)
class Place:
    node: int
    nodes: int
    address: str
    """Of the first host, as all of them can resolve it."""
    port: int

    @property
    def endpoint(self) -> str:
        return f"{self.address}:{self.port}"


def place_of(nodes: int) -> Place | None:
    """None where the plan has one node, or hosts do not meet. Raises RuntimeFailure where the environment does not say."""
    if nodes == 1 or is_dynamic():
        return None
    try:
        node, port = int(os.environ["NODE_RANK"]), int(os.environ["MASTER_PORT"])
        place = Place(node, nodes, os.environ["MASTER_ADDR"], port)
    except (KeyError, ValueError) as error:
        fix = f"set NODE_RANK (0 to {nodes - 1}), MASTER_ADDR and MASTER_PORT on each host"
        raise RuntimeFailure(f"the plan has {nodes} nodes, and the environment is not set: {error}", 2, fix) from None
    if not 0 <= node < nodes:
        raise RuntimeFailure(f"NODE_RANK is {node}, the plan has {nodes} nodes", EXIT_PREFLIGHT, f"0 to {nodes - 1}")
    return place


def is_dynamic() -> bool:
    return bool(os.environ.get(DYNAMIC_VARIABLE))


def host_name() -> str:
    return socket.gethostname()


def seconds(variable: str, default: float) -> float:
    """A setting of the environment; the default where it is no number."""
    try:
        return float(os.environ.get(variable, default))
    except ValueError:
        return default
