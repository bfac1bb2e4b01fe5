"""Work that a child of this process does while it goes on: of a machine's two cores a trace would use one.

A child has all that this process has when it is forked, and what it finds goes back through a pipe. Whoever asks for it must be able
to find it alone: where there is one core, no fork, or a child that failed, it is this process that does the work, and so tells of
what is wrong with it.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from typing import Any

import torch


def can_fork() -> bool:
    """On a machine with more than one core; on macOS its libraries do not stand a fork."""
    return sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1


class Aside:
    """``work``, done by a child. What it returns must be such as pickle takes."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._reading, writing = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            os.close(self._reading)
            _work(work, writing)
        os.close(writing)

    def found(self) -> Any:
        """What the child found; None where it failed."""
        with os.fdopen(self._reading, "rb") as file:
            told = file.read()
        _, status = os.waitpid(self._child, 0)
        return pickle.loads(told) if status == 0 and told else None


def _work(work: Callable[[], Any], writing: int) -> None:
    """Never returns: nothing that this process has opened is the child's to close."""
    code = 1
    try:
        torch.set_num_threads(1)  # threads are not forked, and who asks for them waits for ever
        told = pickle.dumps(work())
        with os.fdopen(writing, "wb") as file:
            file.write(told)
        code = 0
    finally:
        os._exit(code)
