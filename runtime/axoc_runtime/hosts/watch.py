"""Hosts beat once a second while they train: one that is silent, dead or has failed ends the run on all, by its name.

Nothing else would: where a link is cut no packet says so, and a collective waits an hour for its peers. All beats go to the
first host, which tells the others, so n hosts have n - 1 connections; those of the meeting, which are open already.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from select import select
from types import TracebackType
from typing import Any, Final

from axoc_runtime.errors import EXIT_HOST
from axoc_runtime.hosts.line import Gone, Line
from axoc_runtime.hosts.meeting import Meeting

BEAT_SECONDS: Final = 1.0
SEND_SECONDS: Final = 0.5
"""A beat is some bytes: what takes longer is a line that takes nothing any more, which the silence limit finds."""
STOPPED_SECONDS: Final = 10.0
"""A pause of this process itself (Ctrl-Z, a machine that slept) is no silence of others."""


@dataclass(frozen=True)
class Loss:
    """What ended the run, and the exit code for it."""

    message: str
    code: int = EXIT_HOST


class HostWatch:
    """A context around the training processes. ``on_loss`` is called once, from the watch's thread."""

    def __init__(self, meeting: Meeting, silent_seconds: float, on_loss: Callable[[Loss], None]) -> None:
        self.meeting, self.silent_seconds, self.on_loss = meeting, silent_seconds, on_loss
        self.loss: Loss | None = None
        self._lines: dict[int, Line] = dict(meeting.lines)
        self._heard = dict.fromkeys(self._lines, time.monotonic())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hosts", daemon=True)

    def __enter__(self) -> HostWatch:
        self._heard = dict.fromkeys(self._lines, time.monotonic())
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(0 if error is None else EXIT_HOST, "" if error is None else type(error).__name__)

    def close(self, code: int, message: str) -> None:
        """The end of this host's part, told to the others: at once where it failed. Does nothing the second time."""
        if self._over.is_set():
            return
        self._over.set()
        self._thread.join(timeout=5 * BEAT_SECONDS)
        if self.loss is None:
            for node in list(self._lines):
                self._send(node, {"ended": code, "message": message})
        self.meeting.close()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._over.is_set() and self.loss is None:
            for node in list(self._lines):
                self._send(node, {"beat": 1})
            self._hear(last + BEAT_SECONDS)
            now = time.monotonic()
            if now - last > STOPPED_SECONDS:
                self._heard = {node: heard + now - last for node, heard in self._heard.items()}
            last = now
            self._judge(now)

    def _hear(self, until: float) -> None:
        """Takes all that comes until then."""
        while self.loss is None and not self._over.is_set() and (left := until - time.monotonic()) > 0:
            if not self._lines:
                self._over.wait(left)
                return
            nodes = {line.socket: node for node, line in self._lines.items()}
            for ready in select(list(nodes), [], [], left)[0]:
                self._read(nodes[ready])

    def _read(self, node: int) -> None:
        try:
            for told in self._lines[node].ready():
                self._heard[node] = time.monotonic()
                self._note(node, told)
        except Gone as gone:
            if node in self._lines:
                self._lose(node, Loss(f"lost {self.meeting.named(node)}: {gone}"))

    def _note(self, node: int, told: dict[str, Any]) -> None:
        if "lost" in told:
            self._lose(node, Loss(str(told["lost"]), int(told["code"])))
        elif told.get("ended"):
            code, message = int(told["ended"]), told.get("message") or "see its output"
            self._lose(node, Loss(f"{self.meeting.named(node)} ended with code {code}: {message}", code))
        elif "ended" in told:
            self._lines.pop(node, None)

    def _judge(self, now: float) -> None:
        if self.silent_seconds <= 0:
            return
        for node in list(self._lines):
            silent = now - self._heard[node]
            if silent > self.silent_seconds and self.loss is None:
                named = self.meeting.named(node)
                self._lose(
                    node, Loss(f"lost {named}: nothing was heard of it for {silent:.0f} s: its link or it is down")
                )

    def _lose(self, node: int, loss: Loss) -> None:
        """The first host tells the others, which hear of no one else."""
        if self.loss is not None:
            return
        self.loss = loss
        for other in [n for n in self._lines if n != node]:
            self._send(other, {"lost": loss.message, "code": loss.code})
        self.on_loss(loss)

    def _send(self, node: int, value: dict[str, Any]) -> None:
        with suppress(Gone):
            self._lines[node].send(value, SEND_SECONDS)
