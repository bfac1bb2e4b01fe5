"""Hosts that meet and watch one another: threads and the loopback. tests/cluster does it with real ones."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.hosts import line as lines
from axoc_runtime.hosts.interface import address_towards, interface_of
from axoc_runtime.hosts.join import meet
from axoc_runtime.hosts.meeting import Meeting
from axoc_runtime.hosts.place import Place, place_of
from axoc_runtime.hosts.watch import HostWatch, Loss


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXOC_HOST_WAIT_SECONDS", "60")
    monkeypatch.setattr("axoc_runtime.hosts.join.RETRY_SECONDS", 0.02)
    names: Iterator[str] = iter(f"name{n}" for n in range(100))
    monkeypatch.setattr("axoc_runtime.hosts.join.host_name", lambda: next(names))


def place(port: int, node: int, nodes: int) -> Place:
    return Place(node, nodes, "127.0.0.1", port)


def met(port: int, nodes: int, what: str = "train") -> list[Meeting]:
    with ThreadPoolExecutor(nodes) as pool:
        return [f.result() for f in [pool.submit(meet, place(port, n, nodes), what) for n in range(nodes)]]


def each(meetings: list[Meeting], call: Callable[[Meeting], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(meetings)) as pool:
        return [f.exception() or f.result() for f in [pool.submit(call, m) for m in meetings]]


def test_all_hosts_learn_the_same_and_the_port_is_free_again(port: int) -> None:
    meetings = met(port, 3)
    assert [m.node for m in meetings] == [0, 1, 2]
    assert len({m.hosts for m in meetings}) == 1 and len(set(meetings[0].hosts)) == 3
    assert each(meetings, lambda m: m.gather(m.node * 10, 60)) == [[0, 10, 20]] * 3
    with socket.create_server(("", port)):
        assert each(meetings, lambda m: m.gather(None, 60)) == [[None] * 3] * 3


def test_clocks_are_compared(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    meetings = met(port, 2)
    real = time.time

    def skewed() -> float:
        return real() + (7.0 if threading.current_thread().name == "late clock" else 0.0)

    monkeypatch.setattr("axoc_runtime.hosts.meeting.time.time", skewed)
    found: Future[list[float]] = Future()
    threading.Thread(target=lambda: found.set_result(meetings[1].clock_offsets_seconds()), name="late clock").start()
    assert meetings[0].clock_offsets_seconds() == [0.0, pytest.approx(7.0, abs=0.2)]
    assert found.result(60) == [0.0, pytest.approx(7.0, abs=0.2)]


def test_who_never_comes_is_named_by_all_that_are_there(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXOC_HOST_WAIT_SECONDS", "2")
    with ThreadPoolExecutor(2) as pool:
        for found in [pool.submit(meet, place(port, n, 4), "train") for n in (0, 2)]:
            failure = found.exception()
            assert isinstance(failure, RuntimeFailure) and failure.exit_code == 21
            assert str(failure).startswith("missing after 2 s: nodes 1, 3 of 4; here: name")
            assert "(node 2)" in str(failure)


def test_a_first_host_that_never_comes(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXOC_HOST_WAIT_SECONDS", "0.3")
    with pytest.raises(RuntimeFailure, match=rf"node 0 at 127.0.0.1:{port} was not reached .* refused") as caught:
        meet(place(port, 1, 2), "train")
    assert caught.value.exit_code == 21


def test_a_port_that_is_taken(port: int) -> None:
    with (
        socket.create_server(("", port)),
        pytest.raises(RuntimeFailure, match=f"port {port} of .* is not free") as caught,
    ):
        meet(place(port, 0, 2), "train")
    assert caught.value.exit_code == 20


def test_strangers_and_hosts_at_another_step_are_not_taken_for_hosts(port: int) -> None:
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(meet, place(port, 0, 2), "preflight")
        stranger = _connect(port)
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        early = lines.Line(_connect(port))
        early.send({"node": 1, "host": "early", "what": "train"})
        assert early.receive(60) == {"again": "node 0 is at preflight, this one at train"}
        assert not first.done()
        right = pool.submit(meet, place(port, 1, 2), "preflight")
        assert first.result(60).hosts == right.result(60).hosts
        assert "early" not in first.result().hosts


def _connect(port: int) -> socket.socket:
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_two_hosts_of_one_number(port: int) -> None:
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(meet, place(port, 0, 3), "train")
        one, other = lines.Line(_connect(port)), lines.Line(_connect(port))
        one.send({"node": 1, "host": "one", "what": "train"})
        other.send({"node": 1, "host": "other", "what": "train"})
        assert other.receive(60) == {"again": "one is node 1 already: NODE_RANK differs on each host"}
        third = pool.submit(meet, place(port, 2, 3), "train")
        assert first.result(60).hosts[1] == third.result(60).hosts[1] == "one"


def test_why_a_host_was_sent_away_is_told_in_the_end(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXOC_HOST_WAIT_SECONDS", "0.3")
    with socket.create_server(("127.0.0.1", port)) as door, ThreadPoolExecutor(1) as pool:
        pool.submit(_send_all_away, door)
        with pytest.raises(RuntimeFailure, match=r"was not reached .* one is node 1 already") as caught:
            meet(place(port, 1, 3), "train")
        door.shutdown(socket.SHUT_RDWR)
    assert caught.value.exit_code == 21


def _send_all_away(door: socket.socket) -> None:
    while True:  # until the door is shut
        lines.Line(door.accept()[0]).send({"again": "one is node 1 already"})


def test_a_host_that_leaves_is_named_in_the_next_question(port: int) -> None:
    meetings = met(port, 3)
    meetings[2].close()
    for failure in each(meetings[:2], lambda m: m.gather(None, 60)):
        assert isinstance(failure, RuntimeFailure) and failure.exit_code == 21
        assert f"lost {meetings[0].hosts[2]} (node 2): what ran there is gone" in str(failure)


class Watched:
    """A host whose watch has found something, or not."""

    def __init__(self, meeting: Meeting, silent_seconds: float = 2.0) -> None:
        self.found = threading.Event()
        self.watch = HostWatch(meeting, silent_seconds, lambda loss: self.found.set())
        self.watch.__enter__()

    def loss(self) -> Loss:
        assert self.found.wait(60)
        assert self.watch.loss is not None
        return self.watch.loss


@pytest.fixture
def beat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("axoc_runtime.hosts.watch.BEAT_SECONDS", 0.1)


def test_a_silent_host_is_named_to_all(port: int, beat: None) -> None:
    meetings = met(port, 3)
    first, second = Watched(meetings[0]), Watched(meetings[1])  # the third is connected, and says nothing
    for watched in (first, second):
        assert watched.loss().code == 21
        assert f"lost {meetings[0].hosts[2]} (node 2): nothing was heard of it for" in watched.loss().message


def test_hosts_that_beat_are_no_loss_and_leave_in_any_order(port: int, beat: None) -> None:
    watched = [Watched(m) for m in met(port, 3)]
    time.sleep(2.5)  # longer than silence may be
    for one in (watched[1], watched[0], watched[2]):
        one.watch.close(0, "")
    assert [one.watch.loss for one in watched] == [None] * 3


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_host_that_fails_is_named_with_its_reason_and_code(port: int, beat: None, failing: int) -> None:
    meetings = met(port, 3)
    watched = [Watched(m, silent_seconds=60) for m in meetings]
    watched[failing].watch.close(15, "rank 5 was killed")
    for node in {0, 1, 2} - {failing}:
        loss = watched[node].loss()
        assert loss == Loss(f"{meetings[0].hosts[failing]} (node {failing}) ended with code 15: rank 5 was killed", 15)


def test_the_environment_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AXOC_DYNAMIC_HOSTS", raising=False)
    assert place_of(1) is None
    for name, value in {"NODE_RANK": "1", "MASTER_ADDR": "here", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    assert place_of(2) == Place(1, 2, "here", 29500)
    monkeypatch.setenv("NODE_RANK", "2")
    with pytest.raises(RuntimeFailure, match="NODE_RANK is 2, the plan has 2 nodes"):
        place_of(2)
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(RuntimeFailure, match="MASTER_PORT"):
        place_of(2)
    monkeypatch.setenv("AXOC_DYNAMIC_HOSTS", "1")
    assert place_of(2) is None


def test_own_addresses_and_their_interfaces() -> None:
    assert address_towards("127.0.0.1") is None and address_towards("no.such.host.invalid") is None
    assert interface_of("127.0.0.1") == "lo" and interface_of("198.18.77.77") is None
