"""`upload --follow`: beside a run that trains, sends each checkpoint once it is complete, and outlives a store that is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from axoc_runtime.failure.heartbeat import die_with_parent
from axoc_runtime.job import Job
from axoc_runtime.upload.send import Sender
from axoc_runtime.upload.store import StoreLost

POLL_SECONDS: Final = 2.0
PATIENCE_SECONDS: Final = 30.0
"""Then the newest checkpoint is looked for again: what waited may be rotated away."""
LOWEST_PRIORITY: Final = 19


def follow(job: Job) -> None:
    """Until it is ended by the process that started it."""
    die_with_parent(signal.SIGKILL)
    os.nice(LOWEST_PRIORITY)  # training goes first
    told = Told(job)
    sender = Sender(job, PATIENCE_SECONDS, told.lost)
    while True:
        try:
            for folder in sender.unsent()[:1]:
                if sender.send_checkpoint(folder):
                    told.sent(folder)
                sender.prune()
        except StoreLost as lost:
            told.lost(str(lost))
        except OSError as error:  # a full disk has no room for the journal: the run itself will say so
            told.lost(str(error))
        time.sleep(POLL_SECONDS)


class Told:
    """Says once that the store is lost, and once that it is back."""

    def __init__(self, job: Job) -> None:
        self.job, self.is_lost = job, False

    def lost(self, why: str) -> None:
        if not self.is_lost:
            self.is_lost = True
            _say(f"{self.job.upload_to} does not take uploads ({why}): training goes on, and it is tried again")

    def sent(self, folder: Path) -> None:
        back = f"{self.job.upload_to} takes uploads again: " if self.is_lost else ""
        self.is_lost = False
        _say(f"{back}{folder.name} is in {self.job.upload_to}")


def _say(line: str) -> None:
    print(f"axoc: {line}", file=sys.stderr, flush=True)


class Follower:
    """A context around the training processes of the first node; nothing where no upload was asked for."""

    def __init__(self, job: Job | None, job_file: Path | None) -> None:
        self.wanted = job is not None and job.upload_to is not None and os.environ.get("NODE_RANK", "0") == "0"
        self.job_file = job_file
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Follower:
        if self.wanted:
            line = [sys.executable, "-m", "axoc_runtime", "upload", str(self.job_file), "--follow"]
            self._process = subprocess.Popen(line, stdin=subprocess.DEVNULL)
        return self

    def __exit__(self, *_: Any) -> None:
        """At once: what it had not sent, `upload` sends after the run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
