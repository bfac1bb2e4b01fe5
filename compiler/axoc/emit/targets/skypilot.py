"""SkyPilot: a task for managed jobs, which start it again elsewhere where a machine is taken away."""

from __future__ import annotations

from math import ceil
from typing import Any, Final

from axoc.emit.placement import placement
from axoc.emit.targets.base import Target, node_of, packaged, text_file
from axoc.emit.targets.names import dns_name
from axoc.emit.targets.yaml_text import yaml_documents
from axoc.errors import Diagnostic, UserError
from axoc.ir.bundle import BundleFile
from axoc.ir.plan import Plan

TASK: Final = "config/skypilot.yaml"
NAMES: Final = {
    "h100-sxm-80gb": "H100",
    "h100-pcie-80gb": "H100",
    "h200-sxm-141gb": "H200",
    "b200-sxm-180gb": "B200",
    "a100-sxm-80gb": "A100-80GB",
    "a100-pcie-80gb": "A100-80GB",
    "a100-sxm-40gb": "A100",
    "l4-24gb": "L4",
    "l40s-48gb": "L40S",
    "a10g-24gb": "A10G",
    "t4-16gb": "T4",
    "v100-sxm-32gb": "V100-32GB",
    "rtx4090-24gb": "RTX4090",
    "rtx3090-24gb": "RTX3090",
    "rtx5090-32gb": "RTX5090",
    "rtx6000-ada-48gb": "RTX6000-Ada",
    "gh200-96gb": "GH200",
    "mi300x-192gb": "MI300X",
}
"""axoc's accelerators as SkyPilot's catalogs call them (its documentation, "GPUs and other accelerators", 0.14)."""
SMALLEST_DISK_GB: Final = 256
COMMENT: Final = """\
Written by axoc: launch.sh submits it, from the folder that the spec's relative paths count from.
With upload_to a new machine goes on from the checkpoints on the store. Several nodes need a folder that all of them see."""


class Skypilot(Target):
    """The bundle travels with the working folder; AXOC_BUNDLE says where in it."""

    def shell(self) -> str:
        return packaged("skypilot.sh")

    def files(self, plan: Plan) -> list[BundleFile]:
        """Raises UserError for an accelerator of which SkyPilot's name is not known."""
        task = {
            "name": dns_name(plan.request.name, 48),
            "num_nodes": placement(plan).nodes,
            "workdir": ".",
            "envs": {"AXOC_BUNDLE": "bundle"},
            "resources": _resources(plan),
            "setup": 'cd ~/sky_workdir && exec "$AXOC_BUNDLE/launch.sh" --install\n',
            "run": 'cd ~/sky_workdir && exec "$AXOC_BUNDLE/launch.sh" --resume\n',
        }
        return [text_file(TASK, yaml_documents(COMMENT, [task]))]


def _resources(plan: Plan) -> dict[str, Any]:
    wanted, node = plan.request.target, node_of(plan)
    disk_gb = ceil(plan.chosen.estimate.memory.disk_bytes * 1.25 / 1e9)
    resources: dict[str, Any] = {"accelerators": {_name(plan): node.gpus}} if node.gpus else {}
    resources |= {"cpus": f"{node.cpus}+", "memory": f"{node.memory_gib}+", "disk_size": max(SMALLEST_DISK_GB, disk_gb)}
    resources |= {"use_spot": wanted.spot, "job_recovery": {"max_restarts_on_errors": wanted.retries}}
    if wanted.infra is not None:
        resources["infra"] = wanted.infra
    if wanted.image is not None:
        resources["image_id"] = f"docker:{wanted.image}"
    return resources | dict(sorted(wanted.options.items()))


def _name(plan: Plan) -> str:
    accelerator = plan.cluster.accelerator.name
    named = plan.request.target.accelerator or NAMES.get(accelerator)
    if named is None:
        message = f"SkyPilot's name of the accelerator {accelerator} is not known"
        fix = "set target.accelerator to the name that `sky gpus list` shows"
        raise UserError(Diagnostic(message=message, expected=", ".join(sorted(set(NAMES.values()))), fix=fix))
    return named
