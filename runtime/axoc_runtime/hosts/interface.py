"""Which network gloo is to use: the one on which hosts meet."""

from __future__ import annotations

import os
from typing import Final

import psutil

VARIABLE: Final = "GLOO_SOCKET_IFNAME"


def use_interface(address: str) -> None:
    """gloo binds what this host's name resolves to, which on many systems is the loopback, and no other host can reach it.
    NCCL looks for itself, and finds faster networks than that of the meeting."""
    if VARIABLE not in os.environ and (name := interface_of(address)) is not None:
        os.environ[VARIABLE] = name


def interface_of(address: str) -> str | None:
    """The interface that has this address; None where none has, as behind some container networks."""
    found = psutil.net_if_addrs().items()
    return next((name for name, entries in found if any(e.address.partition("%")[0] == address for e in entries)), None)
