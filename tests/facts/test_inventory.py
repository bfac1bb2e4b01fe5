"""Inventories: the short form, the file form, and errors with their place."""

from __future__ import annotations

import pytest
from axoc.errors import UserError
from axoc.facts.inventory import parse_inventory, with_processes
from axoc.units import GIB

FILE = """\
version: 1
kinds:
  - accelerator: h100-sxm-80gb
    per_node: 8
    nodes: 4
    memory_gib: 70
    host_memory_gb: 1000
    disk_gb: 2000
    cpu_cores: 64
    network: {kind: infiniband, gbps: 1600}
    link: {kind: nvlink, gbps: 3200}
    price_per_hour_usd: 2.5
  - accelerator: l4-24gb
"""


def refusal(text: str, file_text: str | None = None) -> UserError:
    with pytest.raises(UserError) as caught:
        parse_inventory(text, file_text, None if file_text is None else "inv.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("h100-sxm-80gb", ["h100-sxm-80gb:1"]),
        ("h100-sxm-80gb:8", ["h100-sxm-80gb:8"]),
        ("H100-SXM-80GB:8x4", ["h100-sxm-80gb:8x4"]),
        ("h100-sxm-80gb:8x64, a100-sxm-80gb:8x32", ["h100-sxm-80gb:8x64", "a100-sxm-80gb:8x32"]),
        ("cpu:2", ["cpu:2"]),
    ],
)
def test_short_form(text: str, labels: list[str]) -> None:
    assert [cluster.label for cluster in parse_inventory(text, None, None)] == labels


def test_a_share_of_a_node_has_a_share_of_its_memory() -> None:
    one, eight = parse_inventory("h100-sxm-80gb,h100-sxm-80gb:8", None, None)
    assert (one.host_memory_bytes, eight.host_memory_bytes) == (256 * GIB, 2048 * GIB)
    assert (one.cpu_cores_per_node, eight.cpu_cores_per_node) == (24, 192)
    assert (one.network_bandwidth_bytes_per_second, eight.network_bandwidth_bytes_per_second) == (50e9, 400e9)


def test_cpu_processes_share_one_machine() -> None:
    (one,), (two,) = parse_inventory("cpu", None, None), parse_inventory("cpu:2", None, None)
    assert (one.world_size, two.world_size, two.nodes) == (1, 2, 1)
    assert one.host_memory_bytes == two.host_memory_bytes == two.accelerator.memory_bytes * 2
    assert two.cpu_cores_per_node == one.cpu_cores_per_node
    rates = [c.accelerator.dense_flops_per_second["float32"] for c in (one, two)]
    assert rates[0] == 2 * rates[1]
    assert with_processes(one, 2) == two and with_processes(two, 1) == one
    (gpus,) = parse_inventory("l4-24gb:4", None, None)
    assert with_processes(gpus, 2) == gpus


@pytest.mark.parametrize(
    "text", ["", ",", "h100-sxm-80gb:", "h100-sxm-80gb:0", "l4-24gb:8x0", "l4-24gb:x4", "a b", "l4-24gb:-1"]
)
def test_unreadable_items(text: str) -> None:
    assert "NAME:PER_NODE" in refusal(text).render()


def test_unknown_names_are_all_told_with_the_nearest() -> None:
    error = refusal("h100-sxm-80:8,rtx4090")
    assert len(error.diagnostics) == 2
    assert "did you mean h100-sxm-80gb?" in error.render() and "did you mean rtx4090-24gb?" in error.render()


def test_a_file_that_is_not_there() -> None:
    assert "no inventory file" in refusal("clusters/mine.yaml").render()


def test_file_form() -> None:
    h100, l4 = parse_inventory("inv.yaml", FILE, "inv.yaml")
    assert (h100.label, l4.label) == ("h100-sxm-80gb:8x4", "l4-24gb:1")
    assert h100.accelerator.memory_bytes == 70 * GIB
    assert (h100.host_memory_bytes, h100.disk_bytes, h100.cpu_cores_per_node) == (1000 * GIB, 2000 * GIB, 64)
    assert (h100.network_kind, h100.network_bandwidth_bytes_per_second) == ("infiniband", 200e9)
    assert h100.accelerator.link_bandwidth_bytes_per_second == 400e9
    assert (h100.price_usd_per_accelerator_hour, h100.price_source) == (2.5, "inventory inv.yaml")
    assert l4.price_usd_per_accelerator_hour is not None and "AWS" in l4.price_source


def test_links_are_of_known_kinds_and_ports_say_their_rate() -> None:
    text = (
        "version: 1\nkinds:\n  - accelerator: h200-sxm-141gb\n    nodes: 2\n    link: {gbps: 1200, direct: true}\n"
        "    network: {kind: infiniband-ndr, ports: 4, efficiency: 0.9, latency_us: 3}\n    storage_gbps: 40\n"
        "    failures_per_node_day: 0.01\n"
    )
    (found,) = parse_inventory("i.yaml", text, "i.yaml")
    assert (found.network_kind, found.network_bandwidth_bytes_per_second) == ("infiniband-ndr", 200e9)
    assert (found.network_efficiency, found.network_latency_seconds) == (0.9, pytest.approx(3e-6))
    assert found.link_direct and found.accelerator.link_bandwidth_bytes_per_second == 150e9
    assert (found.storage_bytes_per_second, found.failures_per_node_day) == (5e9, 0.01)
    (plain,) = parse_inventory("h200-sxm-141gb:8", None, None)
    assert not plain.link_direct and plain.network_efficiency is None


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("{kind: infinband, gbps: 3}", "did you mean infiniband?"),
        ("{kind: ethernet, ports: 3}", "infiniband-ndr"),
        ("{ports: 3}", "whose ports are all alike"),
        ("{gbps: 3, efficiency: 1.5}", "at most 1"),
    ],
)
def test_a_network_that_is_not_known_is_told(network: str, words: str) -> None:
    text = f"version: 1\nkinds:\n  - accelerator: cpu\n    network: {network}\n"
    assert words in refusal("i.yaml", text).render()


def test_aliases_are_refused() -> None:
    text = "version: 1\nkinds: &kinds\n  - accelerator: cpu\n"
    assert parse_inventory("i.yaml", text, "i.yaml")
    assert "aliases" in refusal("i.yaml", text + "version: *kinds\n").render()


def test_cpu_file_divides_the_host_it_names() -> None:
    text = "version: 1\nkinds:\n  - {accelerator: cpu, per_node: 2, host_memory_gb: 24, cpu_cores: 4, memory_gib: 99}\n"
    (cpu,) = parse_inventory("i.yaml", text, "i.yaml")
    (plain,) = parse_inventory("cpu:2", None, None)
    assert cpu.accelerator.memory_bytes == 12 * GIB
    assert cpu.accelerator.dense_flops_per_second["float32"] == 2 * plain.accelerator.dense_flops_per_second["float32"]


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("version: 2\nkinds: [{accelerator: cpu}]\n", 1, 10, "version is not 1"),
        ("kinds: [{accelerator: cpu}]\n", 1, 1, "version is not 1"),
        ("version: 1\nkinds:\n  - acelerator: cpu\n", 3, 5, "did you mean accelerator?"),
        ("version: 1\nkinds:\n  - accelerator: cpuu\n", 3, 18, "did you mean cpu?"),
        ("version: 1\nkinds:\n  - accelerator: cpu\n    per_node: two\n", 4, 15, "whole number"),
        ("version: 1\nkinds:\n  - accelerator: cpu\n    nodes: 0\n", 4, 12, "whole number"),
        ("version: 1\nkinds:\n  - accelerator: cpu\n    disk_gb: -1\n", 4, 14, "above 0"),
        ("version: 1\nkinds:\n  - accelerator: cpu\n    disk_gb: .nan\n", 4, 14, "above 0"),
        ("version: 1\nkinds:\n  - accelerator: cpu\n    nodes: 1\n    nodes: 2\n", 5, 5, "twice"),
        ("version: 1\nkinds: []\n", 2, 8, "kinds is missing or empty"),
        ("version: 1\nkinds:\n  - accelerator: cpu\n    link: fast\n", 4, 11, "link is not a mapping"),
        ("version: 1\nkinds:\n\t- accelerator: cpu\n", 3, 1, "not YAML"),
        ("version: 1\nkinds: [\n", 3, 1, "not YAML"),
        ("- a list\n", 1, 1, "not a mapping"),
    ],
)
def test_file_errors_have_their_place(text: str, line: int, column: int, words: str) -> None:
    error = refusal("inv.yaml", text)
    first = error.diagnostics[0]
    assert (first.file, first.line, first.column) == ("inv.yaml", line, column)
    assert words in error.render()


def test_all_file_errors_at_once() -> None:
    text = "version: 1\nkinds:\n  - {accelerator: h1, per_node: a, network: {gbps: x, speed: 3}}\n  - {nodes: 1}\n"
    assert len(refusal("inv.yaml", text).diagnostics) == 5


@pytest.mark.parametrize(
    "text", ["", "null", "a: &x [1]\nb: *x\n", "\x00", "[" * 5000, "!!python/object:os.system {}", "x" * (2 << 20)]
)
def test_hostile_files_are_refused(text: str) -> None:
    refusal("inv.yaml", text)
