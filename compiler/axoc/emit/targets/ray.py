"""Ray Train: a worker a node, which runs launch.sh there; Ray places them, and starts them again where one is lost."""

from __future__ import annotations

from typing import Final

from axoc.emit.placement import placement
from axoc.emit.targets.base import Target, node_of, packaged, text_file
from axoc.emit.targets.names import plain_name
from axoc.ir.bundle import BundleFile
from axoc.ir.canonical import dumps
from axoc.ir.plan import Plan

DRIVER: Final = "config/ray_train.py"
SETTINGS: Final = "config/ray.json"


class Ray(Target):
    """The driver is the same for every plan; what differs is data beside it."""

    def shell(self) -> str:
        return packaged("ray.sh")

    def files(self, plan: Plan) -> list[BundleFile]:
        place, node = placement(plan), node_of(plan)
        settings = {
            "name": plain_name(plan.request.name),
            "workers": place.nodes,
            "resources_per_worker": {"CPU": node.cpus, **({"GPU": node.gpus} if node.gpus else {})},
            "max_failures": plan.request.target.retries,
        }
        return [text_file(DRIVER, packaged("ray_train.py")), text_file(SETTINGS, dumps(settings))]
