"""Watches the ranks of this node from the process that started them, and ends a run of which a rank hangs.

A collective waits for a rank that is stopped until its timeout, an hour, because some waits are that long: one rank may
write a large model while the others wait. Between two steps of training there is no such reason, and a process that is
stopped does not go on by itself at any time. So silence and steps are watched, and the timeout of collectives stays.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from axoc_runtime.failure.activity import TRAINING
from axoc_runtime.failure.heartbeat import SOCKET_VARIABLE, stacks_file

LIMIT_VARIABLE: Final = "AXOC_HANG_SECONDS"
LIMIT_SECONDS: Final = 600.0
"""A step that has not ended after so long, and after ``STEPS`` times the longest one, hangs. Compiling a graph anew, or
reading a batch from a slow store, takes minutes, not ten."""
STEPS: Final = 20.0
SILENT_SHARE: Final = 0.2
"""Of the limit: a rank that is training and gives no beat is held in the kernel, or by code that never lets Python run."""
STOPPED_SHARE: Final = 0.1
"""Of the limit: one that the system shows as stopped."""
SILENT_SECONDS: Final = 10.0
"""No shorter silence counts, however short the limit: a machine that is overloaded lets threads wait for seconds."""
TICK_SECONDS: Final = 1.0
LONGEST_SOCKET_PATH: Final = 100
"""sockaddr_un holds 108 bytes (man 7 unix)."""


@dataclass
class Seen:
    """A rank as it was last heard; times are this process's monotonic clock."""

    pid: int
    phase: str
    step: int
    moves: int
    longest_step_seconds: float
    heard: float
    moved: float


@dataclass(frozen=True)
class Verdict:
    message: str
    pids: tuple[int, ...]
    """To be killed."""
    ranks: tuple[int, ...]
    """Whose stacks are worth a look."""


def judge(ranks: dict[int, Seen], now: float, limit_seconds: float) -> Verdict | None:
    """What is wrong, if anything. Ranks that have ended are no longer among ``ranks``."""
    for rank, seen in sorted(ranks.items()):
        silent = now - seen.heard
        where = f"after step {seen.step}, while {seen.phase}"
        if silent > max(SILENT_SECONDS, limit_seconds * STOPPED_SHARE) and state_of(seen.pid) in ("T", "t"):
            told = f"rank {rank} has been stopped (SIGSTOP, or a debugger) for {silent:.0f} s, {where}"
            return Verdict(told, (seen.pid,), ())
        if seen.phase == TRAINING and silent > max(SILENT_SECONDS, limit_seconds * SILENT_SHARE):
            told = f"rank {rank} has hung for {silent:.0f} s, {where}: its process lets no Python run"
            return Verdict(told, (seen.pid,), (rank,))
    return _stuck(ranks, now, limit_seconds)


def _stuck(ranks: dict[int, Seen], now: float, limit_seconds: float) -> Verdict | None:
    """All are alive and training, and none gets on. Not before the first step, which compiles and allocates."""
    if not ranks or any(s.phase != TRAINING or not s.longest_step_seconds for s in ranks.values()):
        return None
    waited = min(now - s.moved for s in ranks.values())
    longest = max(s.longest_step_seconds for s in ranks.values())
    if waited <= max(limit_seconds, STEPS * longest):
        return None
    steps = ", ".join(f"rank {rank} after step {s.step}" for rank, s in sorted(ranks.items()))
    told = f"no step was made for {waited:.0f} s, and the longest so far took {longest:.1f} s: {steps}"
    return Verdict(told, tuple(s.pid for s in ranks.values()), tuple(ranks))


def state_of(pid: int) -> str | None:
    """The kernel's letter for it (man 5 proc), None for one that is gone or no child of this process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0] if int(fields[1]) == os.getpid() else None


@dataclass
class Watch:
    """A context: inside it, ranks that are started find the socket in their environment."""

    limit_seconds: float = LIMIT_SECONDS
    message: str | None = None
    """What was wrong, once something was."""
    stacks: str = ""
    """Of the threads of those ranks, as Python saw them."""
    _ranks: dict[int, Seen] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        self._folder = tempfile.TemporaryDirectory(prefix="axoc-", dir=_short_temporary_folder())
        self._path = str(Path(self._folder.name) / "watch")
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._line.bind(self._path)
        self._line.settimeout(TICK_SECONDS)
        os.environ[SOCKET_VARIABLE] = self._path
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(timeout=3 * TICK_SECONDS)
        self._line.close()
        self._folder.cleanup()
        os.environ.pop(SOCKET_VARIABLE, None)

    def kill_all(self) -> None:
        """For a reason that another has found, and tells."""
        for seen in list(self._ranks.values()):
            _send(seen.pid, signal.SIGKILL)

    def _run(self) -> None:
        last = time.monotonic()
        while not self._over.is_set() and self.message is None:
            self._hear()
            now = time.monotonic()
            if now - last > 10 * TICK_SECONDS:  # this process was stopped itself, and perhaps all with it
                self._forgive(now - last)
            last = now
            gone = [rank for rank, seen in self._ranks.items() if state_of(seen.pid) in (None, "Z")]
            for rank in gone:
                del self._ranks[rank]
            verdict = judge(self._ranks, now, self.limit_seconds) if self.limit_seconds > 0 else None
            if verdict is not None:
                self._end(verdict)

    def _hear(self) -> None:
        """Waits a moment for a beat, then takes all that are there."""
        try:
            self._note(json.loads(self._line.recv(4096)))
            self._line.setblocking(False)
            while True:
                self._note(json.loads(self._line.recv(4096)))
        except (OSError, ValueError):
            pass
        finally:
            self._line.settimeout(TICK_SECONDS)

    def _note(self, beat: dict[str, Any]) -> None:
        now, rank = time.monotonic(), int(beat.pop("rank"))
        known = self._ranks.get(rank)
        same = known is not None and (known.pid, known.moves) == (beat["pid"], beat["moves"])
        self._ranks[rank] = Seen(**beat, heard=now, moved=known.moved if known is not None and same else now)

    def _forgive(self, seconds: float) -> None:
        for seen in self._ranks.values():
            seen.heard += seconds
            seen.moved += seconds

    def _end(self, verdict: Verdict) -> None:
        for pid in verdict.pids if verdict.ranks else ():
            _send(pid, signal.SIGUSR1)
        if verdict.ranks:
            time.sleep(TICK_SECONDS)  # for the stacks to be written
        self.stacks = "".join(_read(stacks_file(self._path, rank), rank) for rank in verdict.ranks)
        self.message = verdict.message
        for pid in verdict.pids:
            _send(pid, signal.SIGKILL)


def _send(pid: int, what: signal.Signals) -> None:
    if state_of(pid) is not None:
        os.kill(pid, what)


def _read(path: Path, rank: int) -> str:
    try:
        return f"rank {rank}:\n{path.read_text(encoding='utf-8')}\n"
    except OSError:
        return ""


def _short_temporary_folder() -> str:
    folder = tempfile.gettempdir()
    return folder if len(folder) + 30 < LONGEST_SOCKET_PATH else "/tmp"


def limit_seconds() -> float:
    """Set by the environment, for data or file systems that are slower than the default allows; 0: never."""
    try:
        return float(os.environ.get(LIMIT_VARIABLE, LIMIT_SECONDS))
    except ValueError:
        return LIMIT_SECONDS
