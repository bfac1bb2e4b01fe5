"""A stop that was asked for: it stays known where a library turns the interrupt into an error of its own, as imports do."""

from __future__ import annotations

import signal
import threading
from typing import Any

_ASKED = threading.Event()


def obey_signals() -> None:
    """Ctrl-C and a plain kill alike take away what is half written."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def asked() -> bool:
    return _ASKED.is_set()


def _stop(*_: Any) -> None:
    _ASKED.set()
    raise KeyboardInterrupt
