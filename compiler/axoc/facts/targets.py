"""What launches a run: which settings of the spec each target reads. What it emits stands in ``emit/targets``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Final

GROUP: Final = "axoc.targets"
_PACKAGE: Final = "axoc.emit.targets"


@dataclass(frozen=True, kw_only=True)
class TargetFacts:
    settings: tuple[str, ...]
    """Keys of the spec's ``target`` that it reads, besides ``type``."""
    options: str = ""
    """What its free ``options`` are; empty where it takes none."""
    decided: tuple[str, ...] = ()
    """Options that the plan or a setting decides: they may not be set a second time."""
    option_name: re.Pattern[str] = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


TARGETS: Final[dict[str, TargetFacts]] = {
    "torchrun": TargetFacts(settings=("rendezvous", "retries")),
    "slurm": TargetFacts(
        settings=(
            "retries", "time_limit_hours", "cpus_per_process", "host_memory_gb",
            "partition", "account", "qos", "restart", "options",
        ),
        options="long options of sbatch, e.g. constraint or reservation",
        decided=(
            "array", "account", "chdir", "cpus-per-task", "gpus", "gpus-per-node", "job-name", "mem", "nodes", "ntasks",
            "ntasks-per-node", "no-requeue", "output", "partition", "qos", "requeue", "signal", "time", "wrap",
        ),
        option_name=re.compile(r"[a-z][a-z0-9-]*"),
    ),
    "kubernetes": TargetFacts(
        settings=(
            "retries", "time_limit_hours", "cpus_per_process", "host_memory_gb",
            "image", "namespace", "queue", "claim", "options",
        ),
        options="keys of the pod, e.g. nodeSelector or tolerations",
        decided=("containers", "restartPolicy", "volumes"),
    ),
    "skypilot": TargetFacts(
        settings=(
            "retries", "cpus_per_process", "host_memory_gb",
            "image", "accelerator", "infra", "spot", "options",
        ),
        options="keys of a task's resources, e.g. disk_tier or network_tier",
        decided=("accelerators", "cpus", "disk_size", "image_id", "infra", "job_recovery", "memory", "use_spot"),
    ),
    "ray": TargetFacts(settings=("retries", "cpus_per_process")),
}  # fmt: skip
BUILTIN: Final[dict[str, str]] = {name: f"{_PACKAGE}.{name}:{name.capitalize()}" for name in TARGETS}
"""Name -> ``module:Class``: also what pyproject.toml declares under the entry point group."""


@cache
def plugin_targets() -> frozenset[str]:
    """Names that other distributions bring; nothing of them is imported."""
    return frozenset(p.name for p in entry_points(group=GROUP) if BUILTIN.get(p.name) != p.value)
