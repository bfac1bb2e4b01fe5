"""JSON objects over a TCP connection, one a line. Data only: whoever connects can make nothing run."""

from __future__ import annotations

import json
import socket
import time
from typing import Any, Final

LONGEST_BYTES: Final = 1 << 24
"""Of a line: facts of thousands of hosts are some MiB."""


class Gone(Exception):
    """The other end is closed, or speaks another protocol: says which."""


class Line:
    """Not for several threads at once."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self._read = b""

    @property
    def own_address(self) -> str:
        """By which the other end reaches this host."""
        return str(self.socket.getsockname()[0]).removeprefix("::ffff:")

    def send(self, value: Any, seconds: float = 30.0) -> None:
        """Raises Gone."""
        try:
            self.socket.settimeout(seconds)
            self.socket.sendall(json.dumps(value).encode() + b"\n")
        except OSError as error:
            raise Gone(str(error)) from None

    def receive(self, seconds: float) -> Any:
        """The next object. Raises TimeoutError after so long, and Gone."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._read:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._fill(left)
        first, _, self._read = self._read.partition(b"\n")
        try:
            return json.loads(first)
        except ValueError:
            raise Gone("it speaks another protocol") from None

    def ready(self) -> list[Any]:
        """What has come by now, without waiting. Raises Gone once that has been handed out."""
        try:
            self._fill(0.0)
        except TimeoutError:
            pass
        except Gone:
            if b"\n" not in self._read:
                raise
        found = []
        while b"\n" in self._read:
            found.append(self.receive(1.0))
        return found

    def _fill(self, seconds: float) -> None:
        try:
            self.socket.settimeout(seconds)
            more = self.socket.recv(1 << 16)
        except (TimeoutError, BlockingIOError):
            raise TimeoutError from None
        except OSError as error:
            raise Gone(str(error)) from None
        if len(self._read) > LONGEST_BYTES:
            raise Gone("it speaks another protocol")
        if not more:
            raise Gone("what ran there is gone: killed, or its machine restarted")
        self._read += more

    def close(self) -> None:
        self.socket.close()
