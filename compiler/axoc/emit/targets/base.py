"""What a target is: the files of its engine, and a few lines of shell that tell launch.sh where it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.resources import files
from math import ceil
from typing import Final

from axoc.emit.placement import placement
from axoc.ir.bundle import BundleFile
from axoc.ir.plan import Plan
from axoc.ir.request import TargetRequest
from axoc.units import GIB

SHELL: Final = "config/target.sh"
MEMORY_MARGIN: Final = 1.25
"""Of host memory over the prediction: page cache counts as the job's in a control group, and a limit kills."""
CPUS_PER_GPU: Final = 8
"""Loading, tokenizing and a process's own threads; nodes with accelerators have at least as many cores for each."""


class Target(ABC):
    """Subclasses are made without arguments. Same plan, same bytes."""

    @abstractmethod
    def shell(self) -> str:
        """Text of config/target.sh, which launch.sh sources: ``on_worker``, ``use_placement`` and ``submit``
        (docs/targets.md). It holds no value of a spec."""

    def files(self, plan: Plan) -> list[BundleFile]:
        """What the engine reads, under config/. Raises UserError where the plan cannot be told to it."""
        return []

    def figures(self, plan: Plan) -> dict[str, str | int]:
        """More of config/launch.env, for the shell: PLAN_... names, any values."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Node:
    """What a node of the plan needs."""

    cpus: int
    memory_gib: int
    gpus: int
    gpu_resource: str
    """Kubernetes' name of the device."""


def node_of(plan: Plan) -> Node:
    """Of the nodes, which are alike. What is not set is at most what they have: an engine would wait for ever for more."""
    place, wanted = placement(plan), plan.request.target
    gpus = place.processes_per_node if place.device == "cuda" else 0
    return Node(
        cpus=_cpus(plan, CPUS_PER_GPU if gpus else 1),
        memory_gib=_memory_gib(plan, wanted),
        gpus=gpus,
        gpu_resource="amd.com/gpu" if plan.cluster.accelerator.vendor == "amd" else "nvidia.com/gpu",
    )


def _cpus(plan: Plan, each: int) -> int:
    processes, wanted = placement(plan).processes_per_node, plan.request.target.cpus_per_process
    if wanted != "auto":
        return wanted * processes
    return max(processes, min(each * processes, plan.cluster.cpu_cores_per_node))


def _memory_gib(plan: Plan, wanted: TargetRequest) -> int:
    if wanted.host_memory_gb != "auto":
        return ceil(wanted.host_memory_gb)
    planned = ceil(plan.chosen.estimate.memory.host_bytes * MEMORY_MARGIN / GIB)
    return max(1, min(planned, plan.cluster.host_memory_bytes // GIB))


def packaged(name: str) -> str:
    """A constant text of ``axoc_templates/targets``."""
    return (files("axoc_templates") / "targets" / name).read_text(encoding="utf-8")


def text_file(path: str, text: str) -> BundleFile:
    return BundleFile(path=path, content=text.encode())
