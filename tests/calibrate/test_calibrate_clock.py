"""The clock's queueing, on a simulated device: the kernels' own time is read however slow the host is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from axoc_runtime.calibrate import clock

SPINS_PER_SECOND = 1.9e9


class Device:
    """A stream: work begins when it is queued and what came before is done."""

    def __init__(self) -> None:
        self.host = self.free = 0.0

    def queue(self, device_seconds: float, host_seconds: float = 0.0) -> None:
        self.host += host_seconds
        self.free = max(self.free, self.host) + device_seconds


class Event:
    device: Device

    def record(self) -> None:
        self.at = max(self.device.free, self.device.host)

    def query(self) -> bool:
        return self.device.host >= self.at

    def synchronize(self) -> None:
        self.device.host = max(self.device.host, self.at)

    def elapsed_time(self, other: Event) -> float:
        return (other.at - self.at) * 1e3


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Event.device = Device()
    monkeypatch.setattr(clock, "_event", Event)
    monkeypatch.setattr(clock, "_spin", lambda cycles: made.queue(cycles / SPINS_PER_SECOND))
    monkeypatch.setattr(clock, "now", lambda: made.host)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: setattr(made, "host", max(made.host, made.free)))
    properties = SimpleNamespace(L2_cache_size=50 << 20, total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    return made


@pytest.mark.parametrize("host_seconds", [1e-6, 10e-6, 400e-6])
def test_a_slow_host_does_not_show(device: Device, host_seconds: float) -> None:
    measured = clock.CudaClock().seconds([lambda: device.queue(3e-6, host_seconds)] * 4)
    assert measured == pytest.approx(3e-6, rel=1e-6)


def test_a_host_that_slows_down_is_waited_for(device: Device) -> None:
    """The estimate was of a fast host: the batch is taken again behind a longer spin."""
    made, calls = clock.CudaClock(), [0]

    def call() -> None:
        calls[0] += 1
        device.queue(3e-6, 5e-6 if calls[0] < 3 else 30e-6)

    assert made.seconds([call]) == pytest.approx(3e-6, rel=1e-6)


def test_the_host_is_timed_without_the_device(device: Device) -> None:
    assert clock.CudaClock().host_seconds(lambda: device.queue(2e-6, 7e-6)) == pytest.approx(7e-6, rel=1e-6)


def test_buffers_outgrow_the_cache(device: Device) -> None:
    made = clock.CudaClock()
    assert len(clock.rotating(made, object, 8 << 20)) == 19  # 150 MiB in all
    assert len(clock.rotating(made, object, 1 << 30)) == 2
