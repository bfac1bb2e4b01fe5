"""torchrun on as many hosts as the plan has nodes: one launch.sh on each, by whatever starts them."""

from __future__ import annotations

from axoc.emit.targets.base import Target, packaged
from axoc.ir.plan import Plan


class Torchrun(Target):
    """Nothing is submitted; static ranks, or a rendezvous that takes whoever comes."""

    def shell(self) -> str:
        return packaged("torchrun.sh")

    def figures(self, plan: Plan) -> dict[str, str | int]:
        return {"PLAN_RENDEZVOUS": plan.request.target.rendezvous, "PLAN_RETRIES": plan.request.target.retries}
