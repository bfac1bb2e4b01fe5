"""A rank's heartbeat: a thread that tells the watch on its node what the rank is doing. Silence means that it is stopped.

Datagrams on a Unix socket need neither disk nor network, and a watch that does not listen holds up no rank.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from axoc_runtime.failure.activity import NOW

SOCKET_VARIABLE: Final = "AXOC_WATCH"
"""Holds the path of the watch's socket; set for the ranks by the process that starts them."""
BEAT_SECONDS: Final = 1.0
PR_SET_PDEATHSIG: Final = 1
"""linux/prctl.h"""


def begin(rank: int) -> None:
    """Starts the beat where somebody listens. Told by SIGUSR1, the process writes all its threads' stacks to a file."""
    path = os.environ.get(SOCKET_VARIABLE)
    if not path:
        return
    stacks = open(stacks_file(path, rank), "w", encoding="utf-8")  # noqa: SIM115 - open as long as the process
    faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
    beat = Beat(path, rank)
    NOW.listener = beat.send
    threading.Thread(target=beat.run, name="heartbeat", daemon=True).start()


def stacks_file(path: str, rank: int) -> Path:
    """Beside the socket."""
    return Path(path).with_name(f"stacks-rank{rank}.txt")


class Beat:
    """At each move, so that what is told is what happened last, and every second, so that there is no silence."""

    def __init__(self, path: str, rank: int) -> None:
        self.path, self.rank = path, rank
        self.line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.line.setblocking(False)

    def send(self) -> None:
        """Of no consequence where it fails: the watch is busy, and the next one will do, or it is gone with all else."""
        with suppress(OSError):
            told = {"rank": self.rank, "pid": os.getpid(), **NOW.to_dict()}
            self.line.sendto(json.dumps(told).encode(), self.path)

    def run(self) -> None:
        while True:
            self.send()
            time.sleep(BEAT_SECONDS)


def die_with_parent(how: signal.Signals) -> None:
    """Nothing outlives the process that started it, however that one ended. Linux only; elsewhere signals must do."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(how), 0, 0, 0)
    if os.getppid() != parent:  # it died in between
        os.kill(os.getpid(), how)
