"""What a preflight finds between hosts and links, from what they told: who is named, and with which code."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from axoc_runtime.hosts.meeting import Meeting
from axoc_runtime.preflight import devices
from axoc_runtime.preflight.agree import compare, compare_clocks
from axoc_runtime.preflight.finding import Finding, listed, worst
from axoc_runtime.preflight.folder import bundle_digest, sees_shared_folder
from axoc_runtime.preflight.node import NodeFacts
from axoc_runtime.preflight.packages import check_packages
from axoc_runtime.preflight.report import report
from axoc_runtime.preflight.speed import bus_share, culprits, hops, judge

from runtime.jobs import make_job

ALIKE = NodeFacts(
    host="a", devices=("H100",) * 8, driver="580.65.06", versions={"torch": "2.11.0+cu130", "python": "3.12.3"},
    bundle="sha256:" + "1" * 64, memory_bytes=1 << 40, disk_bytes=1 << 40, findings=(),
)  # fmt: skip


def meeting(*names: str) -> Meeting:
    return Meeting(0, names, {})


def test_hosts_that_are_alike() -> None:
    assert list(compare([ALIKE] * 3, meeting("a", "b", "c"))) == []


@pytest.mark.parametrize(
    ("differing", "code", "told"),
    [
        ({"bundle": "sha256:" + "2" * 64}, 19, "the bundle is 222222222222…, most others' 111111111111…"),
        ({"versions": {"torch": "2.13.0", "python": "3.12.3"}}, 19, "torch 2.13.0, most others' 2.11.0+cu130"),
        ({"versions": {"python": "3.12.3"}}, 19, "torch none, most others' 2.11.0+cu130"),
        ({"driver": "570.1"}, 0, "driver 570.1, most others' 580.65.06"),
        ({"devices": ("H100",) * 7 + ("H200",)}, 0, "devices: 7 x H100, 1 x H200; most others': 8 x H100"),
    ],
)
@pytest.mark.parametrize("odd", [0, 2])
def test_the_odd_host_is_named(differing: dict[str, Any], code: int, told: str, odd: int) -> None:
    nodes = [replace(ALIKE, **differing) if n == odd else ALIKE for n in range(3)]
    (found,) = compare(nodes, meeting("a", "b", "c"))
    assert (found.where, found.code, found.what) == (f"{'abc'[odd]} (node {odd})", code, told)


def test_of_two_hosts_the_second_is_the_odd_one() -> None:
    (found,) = compare([replace(ALIKE, bundle="sha256:9" + "0" * 63), ALIKE], meeting("a", "b"))
    assert found.where == "b (node 1)"


@pytest.mark.parametrize(
    ("offsets", "told"),
    [
        ([0.0, 0.3, -0.4], []),
        ([0.0, 2.0], [("b (node 1)", 0, "its clock is 2.0 s ahead")]),
        ([0.0, -60.0], [("b (node 1)", 19, "its clock is 60.0 s behind")]),
        ([0.0, 60.0, 60.1], [("a (node 0)", 19, "its clock is 60.0 s behind")]),
        ([0.0, 0.1, 7.0], [("c (node 2)", 19, "its clock is 6.9 s ahead")]),
    ],
)
def test_clocks(offsets: list[float], told: list[tuple[str, int, str]]) -> None:
    found = compare_clocks(offsets, meeting("a", "b", "c"))
    assert [(f.where, f.code, f.what) for f in found] == told


FAST, SLOW = 10e9, 1e9


@pytest.mark.parametrize(
    ("slow", "told"),
    [
        ([], []),
        ([(1, 0), (1, 2)], [("sends", [1])]),
        ([(0, 1), (2, 1)], [("receives", [1])]),
        ([(0, 1)], [("sends", [0])]),
        ([(2, 3)], [("link", [2, 3])]),
        ([(4, 3)], [("sends", [4])]),
        ([(1, 0), (1, 2), (2, 3), (4, 3)], [("sends", [1]), ("receives", [3])]),
    ],
)
def test_who_is_slow_among_links(slow: list[tuple[int, int]], told: list[Any]) -> None:
    """All links of five nodes in a row. A node is named where all it sends, or receives, is slow."""
    links = {link: FAST for hop in hops(5) for link in hop}
    assert culprits(links | dict.fromkeys(slow, SLOW), 2.0) == told


def test_of_two_nodes_the_sender_of_the_slow_direction_is_named() -> None:
    assert culprits({(0, 1): FAST, (1, 0): SLOW}, 2.0) == [("sends", [1])]


def test_every_link_is_in_one_round_and_no_node_is_twice_in_one() -> None:
    for nodes in range(2, 8):
        rounds = hops(nodes)
        links = [link for hop in rounds for link in hop]
        assert sorted(links) == sorted((a, b) for a in range(nodes) for b in range(nodes) if abs(a - b) == 1)
        assert all(len({n for link in hop for n in link}) == 2 * len(hop) for hop in rounds)


def test_bus_bandwidth_is_that_of_nccl_tests() -> None:
    assert [bus_share(n) for n in (2, 4, 8)] == [1.0, 1.5, 1.75]


GPUS: dict[str, Any] = {
    "distributed__device": "cuda", "distributed__nodes": 2, "distributed__world_size": 4, "distributed__data_parallel": 4,
    "expect__link_bytes_per_second": 300e9, "expect__network_bytes_per_second": 40e9,
}  # fmt: skip


def ranks(**changes: dict[int, Any]) -> list[dict[str, Any]]:
    """Of two nodes with two ranks each, as planned; ``changes`` by figure and rank."""
    found: list[dict[str, Any]] = [
        {"product_seconds": 1e-3, "node_bus": 290e9, "bus": 39e9, "links": [[1 - r // 2, r // 2, 20e9]]}
        for r in range(4)
    ]
    for figure, values in changes.items():
        for rank, value in values.items():
            found[rank][figure] = value
    return found


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        ({}, []),
        ({"product_seconds": {3: 1.6e-3}}, [("b (node 1), rank 3", "a matrix product takes 1.6 times the median")]),
        (
            {"node_bus": {2: 20e9, 3: 20e9}},
            [("b (node 1)", "within the node: 20.0 GB/s bus bandwidth, the plan counts on 300.0")],
        ),
        ({"node_bus": {0: 160e9}}, [("a (node 0)", "within the node: 160.0 GB/s, the median of all is 290.0 GB/s")]),
        (
            {"bus": dict.fromkeys(range(4), 19e9)},
            [("all hosts", "19.0 GB/s bus bandwidth, the plan counts on 40.0 GB/s; its")],
        ),
        (
            {"bus": {0: 4e9}, "links": {0: [[1, 0, 1e9]], 1: [[1, 0, 1e9]]}},
            [("all hosts", "4.0 GB/s bus bandwidth"), ("b (node 1)", "sends 2.0 GB/s, the fastest link 40.0 GB/s")],
        ),
    ],
)
def test_what_is_slow_is_named_and_fails_on_accelerators(
    tmp_path: Path, measured: Any, told: list[tuple[str, str]]
) -> None:
    found = list(judge(make_job(tmp_path, **GPUS), ranks(**measured), meeting("a", "b")))
    assert [f.where for f in found] == [where for where, _ in told]
    assert all(part in f.what and f.code == 22 for f, (_, part) in zip(found, told, strict=True))


def test_a_slow_link_may_be_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = ranks(bus={0: 1e9})
    monkeypatch.setenv("AXOC_PREFLIGHT_SLOW", "warn")
    assert worst(judge(make_job(tmp_path, **GPUS), slow, meeting("a", "b"))) == 0
    monkeypatch.delenv("AXOC_PREFLIGHT_SLOW")
    assert worst(judge(make_job(tmp_path, **GPUS | {"distributed__device": "cpu"}), slow, meeting("a", "b"))) == 0


def test_ranks_that_reach_no_other_are_named(tmp_path: Path) -> None:
    alone = [{"error": "RuntimeError: Connection refused"} if r > 1 else good for r, good in enumerate(ranks())]
    found = list(judge(make_job(tmp_path, **GPUS), alone, meeting("a", "b")))
    assert [(f.where, f.code) for f in found] == [("b (node 1), rank 2", 20), ("b (node 1), rank 3", 20)]
    assert "Connection refused" in found[0].what and "GLOO_SOCKET_IFNAME" in found[0].fix


def test_the_worst_code_is_that_of_the_cause() -> None:
    found = [Finding(code, "what", "fix") for code in (22, 0, 19, 12)]
    assert worst(found) == 12 and worst(found[:2]) == 22 and worst(found[1:2]) == 0 == worst([])


def test_findings_are_a_line_each_with_what_to_do() -> None:
    lines = listed([Finding(0, "odd", "see it", "b"), Finding(19, "wrong", "mend it", "a")]).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["error", "19", "a", "wrong", "mend", "it"],
        ["warning", "b", "odd", "see", "it"],
    ]
    assert len({line.rstrip().rfind("  ") for line in lines}) == 1, "columns are in line"


def test_the_report_has_a_line_for_each_host(tmp_path: Path) -> None:
    nodes = [replace(ALIKE, host=f"host{n}") for n in range(2)]
    lines = report(make_job(tmp_path, **GPUS), nodes, ranks(), [0.0, 0.25]).splitlines()
    assert (
        lines[2].split()[:5] == ["1", "host1", "8", "x", "H100"] and "+0.250 s" in lines[2] and "290.0 GB/s" in lines[2]
    )
    assert "40.0 GB/s, 40.0 GB/s" in lines[1], "two ranks of 20 each, forth and back"
    assert lines[3].strip() == "all-reduce over 4 ranks: 39.0 GB/s bus bandwidth, the plan counts on 40.0 GB/s"


def test_an_altered_file_of_the_bundle_changes_its_digest(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    (tmp_path / "axoc.bundle.json").write_text('{"files": {"launch.sh": ""}}')
    found = [bundle_digest(job)]
    (tmp_path / "launch.sh").write_text("true")
    found.append(bundle_digest(job))
    (tmp_path / "job.json").write_text("{}")
    assert len({*found, bundle_digest(job)}) == 3


class Together(Meeting):
    """Two hosts of one process, which meet over a list."""

    answers: tuple[list[Any], list[Any]]
    barrier: threading.Barrier

    def gather(self, value: Any, seconds: float) -> list[Any]:
        self.answers[self.node].append(value)
        self.barrier.wait(10)
        count = len(self.answers[self.node])
        return [answers[count - 1] for answers in self.answers]


def seen(first: Path, second: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("axoc_runtime.preflight.folder.APPEARS_SECONDS", 0.2)
    Together.answers, Together.barrier = ([], []), threading.Barrier(2)
    found: dict[int, list[str]] = {}
    jobs = [make_job(first), make_job(second)]

    def one(node: int) -> None:
        found[node] = sees_shared_folder(jobs[node], Together(node, ("a", "b"), {}))

    others = threading.Thread(target=one, args=(1,))
    others.start()
    one(0)
    others.join(10)
    assert found[0] == found[1]
    return found[0]


def test_a_folder_that_hosts_share_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    assert seen(tmp_path / "one", tmp_path / "one", monkeypatch) == ["", ""]
    told = seen(tmp_path / "one", tmp_path / "other", monkeypatch)
    assert (
        told[0] == "" and told[1].startswith("has no .axoc-probe-") and told[1].endswith("which a (node 0) wrote there")
    )
    assert [p.name for p in tmp_path.rglob("*")].count("out") == 0, "nothing is left"


def test_packages_that_are_not_as_locked(tmp_path: Path) -> None:
    import torch

    job = make_job(tmp_path)
    (tmp_path / "requirements.lock").write_text("torch==1.0.0 \\\n    --hash=sha256:0\n")
    (found,) = check_packages(job)
    assert found.code == 0 and f"torch {torch.__version__} (lock: 1.0.0)" in found.what
    (tmp_path / "requirements.lock").write_text(f"torch=={torch.__version__.partition('+')[0]} \\\n")
    assert list(check_packages(job)) == []


@pytest.mark.parametrize(("supports", "told"), [(12080, "runs CUDA up to 12.8"), (13000, None), (13010, None)])
def test_a_driver_that_is_too_old_for_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supports: int, told: str | None
) -> None:
    import torch

    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build\n")
    monkeypatch.setattr(devices, "DRIVER_FILE", version)
    monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", lambda: supports, raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = list(devices.check_devices(make_job(tmp_path, **GPUS)))
    if told is None:
        assert "are needed on each node, 0 are visible here" in found[0].what
    else:
        assert [f.code for f in found] == [12] and told in found[0].what and "driver 570.86.10" in found[0].what
