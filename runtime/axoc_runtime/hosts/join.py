"""How hosts meet: the first one listens until all are there, the others try to reach it for as long."""

from __future__ import annotations

import socket
import sys
import time
from contextlib import suppress
from typing import Any, Final

from axoc_runtime.errors import EXIT_HOST, EXIT_NETWORK, RuntimeFailure
from axoc_runtime.hosts.line import Gone, Line
from axoc_runtime.hosts.meeting import Meeting
from axoc_runtime.hosts.place import WAIT_SECONDS, WAIT_VARIABLE, Place, host_name, seconds

HELLO_SECONDS: Final = 5.0
"""What connects and says nothing for so long is no host of the run."""
TOLD_SECONDS: Final = 15.0
"""Between two lines that say for whom is waited."""
RETRY_SECONDS: Final = 1.0
START: Final = "start launch.sh there too, or see why it ended; " + WAIT_VARIABLE + " is the limit"


def meet(place: Place, what: str) -> Meeting:
    """``what``: the step; hosts that are at another one are told to come again. Raises RuntimeFailure naming who is missing."""
    patience = seconds(WAIT_VARIABLE, WAIT_SECONDS)
    return _Host(place, what, patience).meeting() if place.node == 0 else _reach(place, what, patience)


class _Host:
    """The first host, while the others come."""

    def __init__(self, place: Place, what: str, patience_seconds: float) -> None:
        self.place, self.what, self.patience_seconds = place, what, patience_seconds
        self.lines: dict[int, Line] = {}
        self.names = {0: host_name()}

    def meeting(self) -> Meeting:
        try:
            with _listen(self.place) as door:
                self._wait(door)
        except BaseException:
            self._send_all({"lost": ["node 0: it has ended"]})
            raise
        hosts = tuple(self.names[node] for node in range(self.place.nodes))  # the door is closed by now
        for node in self.lines:
            with suppress(Gone):  # the next question finds out
                self.lines[node].send({"node": node, "hosts": hosts})
        return Meeting(0, hosts, self.lines)

    def _wait(self, door: socket.socket) -> None:
        began = told = time.monotonic()
        while len(self.names) < self.place.nodes:
            now = time.monotonic()
            if now - began > self.patience_seconds:
                raise self._missing()
            if now - told > TOLD_SECONDS:
                told = now
                print(f"axoc: waiting for {self._absent()}, {now - began:.0f} s so far", file=sys.stderr, flush=True)
            with suppress(TimeoutError, Gone, KeyError, TypeError, ValueError):
                self._admit(Line(door.accept()[0]))
            self._forget_gone()

    def _admit(self, line: Line) -> None:
        hello = line.receive(HELLO_SECONDS)
        node, name, what = int(hello["node"]), str(hello["host"]), hello["what"]
        if what != self.what:
            line.send({"again": f"node 0 is at {self.what}, this one at {what}"})
        elif node not in range(self.place.nodes):
            line.send({"refused": f"node {node} of {self.place.nodes}"})
        elif node in self.names:
            line.send({"again": f"{self.names[node]} is node {node} already: NODE_RANK differs on each host"})
        else:
            self.lines[node], self.names[node] = line, name

    def _forget_gone(self) -> None:
        """One that came and left, to be started anew, may come again."""
        for node, line in list(self.lines.items()):
            try:
                line.ready()
            except Gone:
                del self.lines[node], self.names[node]

    def _absent(self) -> str:
        absent = [str(n) for n in range(self.place.nodes) if n not in self.names]
        here = ", ".join(f"{self.names[n]} (node {n})" for n in sorted(self.names))
        return f"node{'s' * (len(absent) > 1)} {', '.join(absent)} of {self.place.nodes}; here: {here}"

    def _missing(self) -> RuntimeFailure:
        told = f"missing after {self.patience_seconds:.0f} s: {self._absent()}"
        self._send_all({"missing": told})
        return RuntimeFailure(told, EXIT_HOST, START)

    def _send_all(self, value: Any) -> None:
        for line in self.lines.values():
            with suppress(Gone):
                line.send(value, HELLO_SECONDS)


def _listen(place: Place) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        door = socket.create_server(("", place.port), family=family, backlog=4096, dualstack_ipv6=both)
    except OSError as error:
        told = f"port {place.port} of {host_name()} (node 0) is not free: {error.strerror}"
        fix = "end what listens there (ss -ltnp), or set another MASTER_PORT on all hosts"
        raise RuntimeFailure(told, EXIT_NETWORK, fix) from None
    door.settimeout(RETRY_SECONDS)
    return door


def _reach(place: Place, what: str, patience_seconds: float) -> Meeting:
    """Tries again, whatever is wrong, until the patience is over: the first host may be the last to start."""
    began = told = time.monotonic()
    why = ""
    while (now := time.monotonic()) - began < patience_seconds:
        if now - told > TOLD_SECONDS:
            told = now
            print(f"axoc: waiting for node 0 at {place.endpoint}: {why}", file=sys.stderr, flush=True)
        try:
            return _introduce(place, what, patience_seconds)
        except (OSError, Gone, _Again) as error:
            why = str(error) or type(error).__name__
            time.sleep(RETRY_SECONDS)
    message = f"node 0 at {place.endpoint} was not reached from {host_name()} within {patience_seconds:.0f} s: {why}"
    raise RuntimeFailure(message, EXIT_HOST, START)


class _Again(Exception):
    """Not now."""


def _introduce(place: Place, what: str, patience_seconds: float) -> Meeting:
    line = Line(socket.create_connection((place.address, place.port), timeout=HELLO_SECONDS))
    try:
        line.send({"node": place.node, "host": host_name(), "what": what})
        answer = line.receive(patience_seconds + TOLD_SECONDS)
        if "again" in answer:
            raise _Again(answer["again"])
        if "missing" in answer or "refused" in answer or "lost" in answer:
            told = answer.get("missing") or answer.get("refused") or "; ".join(answer["lost"])
            raise RuntimeFailure(str(told), EXIT_HOST, START)
        return Meeting(int(answer["node"]), tuple(answer["hosts"]), {0: line})
    except BaseException:
        line.close()
        raise
