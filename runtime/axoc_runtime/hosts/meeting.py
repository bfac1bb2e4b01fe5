"""All hosts of a run, met at the first one: each says who it is, and all go on once all are there.

One TCP connection of each host to the first, on MASTER_PORT. The first stops listening when all are there, so that torch can
take the port; the connections stay. No thread: hosts do the same things in the same order.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

from axoc_runtime.errors import EXIT_HOST, RuntimeFailure
from axoc_runtime.hosts.line import Gone, Line

PINGS: Final = 5


@dataclass
class Meeting:
    node: int
    hosts: tuple[str, ...]
    """Names, by node."""
    lines: dict[int, Line] = field(repr=False)
    """By node: to all others at the first host, to the first at the others."""

    def __enter__(self) -> Meeting:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def named(self, node: int) -> str:
        return f"{self.hosts[node]} (node {node})"

    @property
    def own_address(self) -> str:
        """Of this host, on the network on which hosts meet."""
        return next(iter(self.lines.values())).own_address

    def gather(self, value: Any, seconds: float) -> list[Any]:
        """The values of all hosts, by node. Raises RuntimeFailure naming those whose value has not come in that time."""
        if self.node:
            self._send(0, value)
            return list(self._receive(0, 2 * seconds))
        deadline = time.monotonic() + seconds
        found, lost = [value], []
        for node in range(1, len(self.hosts)):
            try:
                found.append(self.lines[node].receive(max(1.0, deadline - time.monotonic())))
            except (TimeoutError, Gone) as error:
                lost.append(f"{self.named(node)}: {error or 'it says nothing'}")
        answer = {"lost": lost} if lost else found
        for node in self.lines:
            self._send(node, answer, strict=not lost)
        if lost:
            raise _lost(lost)
        return found

    def clock_offsets_seconds(self) -> list[float]:
        """How far each host's clock is ahead of the first's, by node: of several questions the one answered soonest, less
        what its way may have taken."""
        offsets: list[float] = []
        if self.node:
            for _ in range(PINGS):
                self._receive(0, 60.0 + len(self.hosts))
                self._send(0, time.time())
        else:
            offsets = [0.0, *(self._offset(node) for node in sorted(self.lines))]
        return list(self.gather(offsets, 60.0)[0])

    def _offset(self, node: int) -> float:
        asked = []
        for _ in range(PINGS):
            began, before = time.monotonic(), time.time()
            self._send(node, "clock")
            told = float(self._receive(node, 30.0))
            asked.append((time.monotonic() - began, told - before))
        way, ahead = min(asked)
        ahead -= way / 2
        return 0.0 if abs(ahead) <= way / 2 else ahead

    def _send(self, node: int, value: Any, *, strict: bool = True) -> None:
        try:
            self.lines[node].send(value)
        except Gone as error:
            if strict:
                raise _lost([f"{self.named(node)}: {error}"]) from None

    def _receive(self, node: int, seconds: float) -> Any:
        try:
            value = self.lines[node].receive(seconds)
        except (TimeoutError, Gone) as error:
            raise _lost([f"{self.named(node)}: {error or f'it has said nothing for {seconds:.0f} s'}"]) from None
        if isinstance(value, dict) and "lost" in value:
            raise _lost([str(line) for line in value["lost"]])
        return value

    def close(self) -> None:
        for line in self.lines.values():
            line.close()


def _lost(hosts: list[str]) -> RuntimeFailure:
    fix = "see the output there; where it is fine, see whether its link is up"
    return RuntimeFailure(f"lost {'; '.join(hosts)}", EXIT_HOST, fix)
