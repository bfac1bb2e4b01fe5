"""An inventory file of this machine: nvidia-smi where it is, host memory, cores and disk. No part of planning."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

from axoc.errors import Diagnostic, UserError
from axoc.facts.accelerators import find_accelerator, find_driver_name
from axoc.units import GIB, KIB, MIB

_QUERY: Final = ("nvidia-smi", "--query-gpu=name,memory.total,memory.reserved", "--format=csv,noheader,nounits")
_TIMEOUT_SECONDS: Final = 30
_SAME_MEMORY: Final = 0.01
"""A device whose usable memory is within this share of the catalog's is the catalog's."""

Device = tuple[str, float]
"""Catalog name and usable GiB."""


def inventory_of_this_machine() -> str:
    """YAML text. Raises UserError where a GPU is none that the catalog knows."""
    output = smi()
    devices = parse_devices(output) if output else [("cpu", 0.0)]
    return render(devices, host_memory_gib(), os.cpu_count() or 1, shutil.disk_usage(Path.cwd()).free / GIB)


def parse_devices(output: str) -> list[Device]:
    """One device a line of nvidia-smi's answer: ``name, total MiB, reserved MiB``."""
    devices: list[Device] = []
    problems: list[Diagnostic] = []
    for line in filter(None, map(str.strip, output.splitlines())):
        name, total, reserved = (part.strip() for part in line.rsplit(",", 2))
        found = find_driver_name(name, _mib(total))
        if found is None:
            problems.append(_unknown(name))
        else:
            devices.append((found, (_mib(total) - _mib(reserved)) * MIB / GIB))
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return devices


def render(devices: list[Device], host_memory_gib: float, cores: int, free_disk_gib: float) -> str:
    """The inventory's text; devices of one kind are counted together."""
    lines = [
        "# Written by `axoc inventory`: correct what is wrong, add nodes, links and price.",
        "version: 1",
        "kinds:",
    ]
    for name, count in Counter(name for name, _ in devices).items():
        lines += [f"  - accelerator: {name}", f"    per_node: {count}", "    nodes: 1"]
        memory = min(gib for other, gib in devices if other == name)
        if _differs(name, memory):
            lines.append(f"    memory_gib: {_floor(memory)}")
        lines += [f"    host_memory_gb: {_floor(host_memory_gib)}", f"    disk_gb: {int(free_disk_gib)}"]
        lines.append(f"    cpu_cores: {cores}")
    return "\n".join(lines) + "\n"


def _differs(name: str, memory_gib: float) -> bool:
    entry = find_accelerator(name)
    if entry is None or memory_gib <= 0:
        return False
    known = entry.facts.memory_bytes / GIB
    return abs(memory_gib - known) > _SAME_MEMORY * known


def _floor(gib: float) -> float:
    """To a hundredth, downwards: never more than there is."""
    return int(gib * 100) / 100


def smi() -> str | None:
    """Its answer; None where there is no such program or no working driver."""
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 and done.stdout.strip() else None


def driver_version() -> str | None:
    """``580.82.07``; None where there is no working driver."""
    try:
        command = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines and lines[0][0].isdigit() else None


def host_memory_gib() -> float:
    """From /proc/meminfo; elsewhere from sysconf."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * KIB / GIB
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB


def _mib(text: str) -> int:
    """``[N/A]``, as MIG devices and old drivers answer, counts as 0."""
    return int(text) if text.isdigit() else 0


def _unknown(name: str) -> Diagnostic:
    return Diagnostic(
        message=f"nvidia-smi reports {name!r}, which is not in axoc's catalog",
        expected="an accelerator of the catalog",
        fix="write an inventory file with the nearest catalog name and this device's memory_gib, link and price",
    )
