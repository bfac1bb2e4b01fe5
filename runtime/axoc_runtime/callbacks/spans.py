"""Stretches of a device's time, measured without stopping the host."""

from __future__ import annotations

import time
from typing import Any

import torch


class Spans:
    """Seconds between ``begin`` and ``end``: on a GPU between the moments at which it comes to these marks among its work, so
    that none has to be waited for; else of the host's clock."""

    def __init__(self, *, on_device: bool) -> None:
        self.on_device = on_device
        self._seconds: list[float] = []
        self._open: list[tuple[Any, Any]] = []
        """Pairs of events that have not been read."""
        self._began: Any = None

    def begin(self) -> None:
        self._began = self._mark()

    def end(self) -> None:
        ended = self._mark()
        if self.on_device:
            self._open.append((self._began, ended))
        else:
            self._seconds.append(ended - self._began)

    @property
    def seconds(self) -> list[float]:
        """Of each span so far. Waits until the device has come to the last mark."""
        if self._open:
            self._open[-1][1].synchronize()
            self._seconds += [began.elapsed_time(ended) / 1e3 for began, ended in self._open]
            self._open.clear()
        return self._seconds

    @property
    def total(self) -> float:
        return sum(self.seconds)

    def __len__(self) -> int:
        return len(self._seconds) + len(self._open)

    def _mark(self) -> Any:
        if not self.on_device:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event
