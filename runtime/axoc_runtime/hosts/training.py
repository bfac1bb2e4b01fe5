"""The hosts around a run of torchrun: met before, watched meanwhile, told at the end. Nothing where the plan has one node."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final

from axoc_runtime.failure.watch import Watch
from axoc_runtime.hosts.interface import address_towards, use_interface
from axoc_runtime.hosts.join import meet
from axoc_runtime.hosts.place import SILENT_SECONDS, SILENT_VARIABLE, is_dynamic, place_of, seconds
from axoc_runtime.hosts.watch import HostWatch, Loss
from axoc_runtime.job import Job

RESUME: Final = "--resume goes on from the last complete checkpoint"
LOST_FIX: Final = f"see that host; with all hosts there, {RESUME}; {SILENT_VARIABLE} is the limit of silence"
GRACE_SECONDS: Final = 15.0
"""For torchrun to notice that its ranks were killed. It may be waiting for a host itself, where no signal reaches it."""
Tell = Callable[[Job | None, int, str, str], int]


class Hosts:
    """Raises RuntimeFailure when made, where a host does not come."""

    def __init__(self, job: Job | None, watch: Watch, tell: Tell) -> None:
        self.job, self.watch, self.tell = job, watch, tell
        self._hosts: HostWatch | None = None
        place = None if job is None else place_of(job.distributed.nodes)
        if is_dynamic() and (address := os.environ.get("MASTER_ADDR")):
            use_interface(address_towards(address))
        if place is not None:
            meeting = meet(place, "train")
            use_interface(meeting.own_address)
            self._hosts = HostWatch(meeting, seconds(SILENT_VARIABLE, SILENT_SECONDS), self._end)

    @property
    def loss(self) -> Loss | None:
        """Of another host, which ended the run."""
        return None if self._hosts is None else self._hosts.loss

    def __enter__(self) -> Hosts:
        if self._hosts is not None:
            self._hosts.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._hosts is not None:
            self._hosts.__exit__(kind, error, at)

    def close(self, code: int, message: str) -> None:
        if self._hosts is not None:
            self._hosts.close(code, message)

    def _end(self, loss: Loss) -> None:
        self.watch.kill_all()
        late = threading.Timer(GRACE_SECONDS, self._leave, [loss])
        late.daemon = True
        late.start()

    def _leave(self, loss: Loss) -> None:
        """The ranks die with this process (heartbeat.die_with_parent)."""
        code = self.tell(self.job, loss.code, loss.message, LOST_FIX)
        sys.stderr.flush()
        os._exit(code)
