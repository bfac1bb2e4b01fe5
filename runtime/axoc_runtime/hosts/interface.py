"""Which network gloo is to use: the one on which hosts meet."""

from __future__ import annotations

import os
import socket
from typing import Final

import psutil

VARIABLE: Final = "GLOO_SOCKET_IFNAME"
DISCARD: Final = 9
"""A port; no packet is sent to it."""


def address_towards(address: str) -> str | None:
    """Of this host, as packets to that one would carry it; nothing is sent. None where the way is the loopback."""
    try:
        family, kind, _, _, where = socket.getaddrinfo(address, DISCARD, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(where)
            found = str(probe.getsockname()[0])
    except OSError:
        return None
    return None if found == "::1" or found.startswith("127.") else found


def use_interface(address: str | None) -> None:
    """gloo binds what this host's name resolves to, which on many systems is the loopback, and no other host can reach it.
    NCCL looks for itself, and finds faster networks than that of the meeting."""
    if address is not None and VARIABLE not in os.environ and (name := interface_of(address)) is not None:
        os.environ[VARIABLE] = name


def interface_of(address: str) -> str | None:
    """The interface that has this address; None where none has, as behind some container networks."""
    found = psutil.net_if_addrs().items()
    return next((name for name, entries in found if any(e.address.partition("%")[0] == address for e in entries)), None)
