"""What a target's engine needs and the spec does not name is told with the plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from asking import facts, plan, request
from axoc.ir.plan import Plan
from axoc.search.target_warnings import target_warnings


def told(nodes: int = 1, *, upload_to: str | None = None, **target: Any) -> str:
    made = request("meta-llama/Meta-Llama-3-8B")
    made = replace(made, upload_to=upload_to, target=replace(made.target, **target))
    (cluster,) = facts(made, f"h100-sxm-80gb:8x{nodes}").clusters
    return "\n".join(target_warnings(made, cluster))


def test_a_pod_without_a_claim_keeps_nothing() -> None:
    assert "the result is lost" in told(type="kubernetes") and "preflight stops" not in told(type="kubernetes")
    assert "preflight stops" in told(2, type="kubernetes", upload_to="s3://bucket/run")
    assert "the result is lost" not in told(2, type="kubernetes", upload_to="s3://bucket/run")
    assert told(2, type="kubernetes", claim="data", image="ghcr.io/acme/run:7") == ""


def test_an_image_without_a_registry() -> None:
    assert "without a registry" in told(type="kubernetes", claim="data")


@pytest.mark.parametrize("kind", ["torchrun", "slurm", "ray"])
def test_others_need_nothing_more(kind: str) -> None:
    assert told(4, type=kind) == ""


def test_several_of_skypilots_nodes_need_a_folder() -> None:
    assert told(type="skypilot") == "" and "output_dir" in told(2, type="skypilot")


def test_a_plan_carries_them() -> None:
    made = plan("meta-llama/Meta-Llama-3-8B", "h100-sxm-80gb:8", target__type="kubernetes")
    assert isinstance(made, Plan) and any(w.startswith("target.claim is not set") for w in made.warnings)
