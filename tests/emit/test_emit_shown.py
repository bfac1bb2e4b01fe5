"""What people and tools are shown: the JSON of a dry run, and the text of a terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from types import ModuleType

from axoc.emit.plan_json import MAX_REJECTIONS, estimate_dict, no_plan_dict, plan_dict, shortfall_bytes
from axoc.emit.terminal import BOLD, WIDTH, render_no_plan, render_plan
from axoc.ir.plan import UNCOUNTED, NoPlan, Plan

CONTRACT_PLAN = (
    "strategy world_size data_parallel tensor_parallel micro_batch_size gradient_accumulation_steps "
    "gradient_checkpointing attention kernels compile packing optimizer offload quantization dtype mixed_precision"
)
CONTRACT_MEMORY = (
    "peak_allocated_bytes peak_reserved_bytes device_used_bytes capacity_bytes peak_phase ledger host_bytes disk_bytes"
)
CONTRACT_ESTIMATE = "memory step_seconds tokens_per_second mfu total_seconds cost_usd error_band"


def test_json_has_the_contracts_structure(plan: Plan) -> None:
    made = json.loads(json.dumps(plan_dict(plan), allow_nan=False))
    assert list(made)[:6] == ["schema_version", "axoc_version", "spec_digest", "plan", "decisions", "estimate"]
    assert set(made["plan"]) >= set(CONTRACT_PLAN.split())
    assert set(made["decisions"][0]) == {"field", "value", "because", "source"}
    assert set(made["estimate"]) >= set(CONTRACT_ESTIMATE.split())
    assert set(made["estimate"]["memory"]) >= set(CONTRACT_MEMORY.split()) | {"phases"}
    assert made["estimate"]["memory"]["ledger"][0].keys() == {"item", "bytes"}
    assert set(made["estimate"]["error_band"]) == {"memory", "time"}
    assert set(made["candidates"][0]) == {"plan", "estimate"}
    assert set(made["rejections"][0]) == {"plan", "rule", "reason", "fix", "link"}


def test_chosen_is_the_first_candidate(plan: Plan) -> None:
    made = plan_dict(plan)
    assert made["candidates"][0] == {"plan": made["plan"], "estimate": made["estimate"]}


def test_long_lists_are_cut_with_their_counts(plans: ModuleType) -> None:
    plan = plans.cpu_ddp_lora()
    made = plan_dict(replace(plan, candidates=plan.candidates * 30))
    assert (len(made["candidates"]), made["candidates_count"]) == (20, 60)
    assert (len(made["rejections"]), made["rejections_count"]) == (MAX_REJECTIONS, 61)
    assert made["rejections_by_rule"] == {"MUON_DEEPSPEED": 1, "memory": 60}


def test_each_rule_is_shown_before_a_second_of_any(plans: ModuleType) -> None:
    """The fixture's only rule other than memory stands last, behind 60 others."""
    assert [r["rule"] for r in plan_dict(plans.cpu_ddp_lora())["rejections"]][:3] == [
        "memory",
        "MUON_DEEPSPEED",
        "memory",
    ]


def test_time_is_broken_down(plans: ModuleType) -> None:
    made = estimate_dict(plans.estimate(used_bytes=10 << 30, capacity_bytes=16 << 30))
    assert made["breakdown"] == {"matmul": 1.5, "communication": 1.0}


def no_plan(plans: ModuleType) -> NoPlan:
    plan = plans.zero3_8xh100()
    return NoPlan(
        request=plan.request,
        spec_digest=plan.spec_digest,
        rejections=plan.rejections,
        nearest=plan.rejections[:1],
        smallest_change="set distributed.offload to optimizer",
    )


def test_no_plan_tells_the_shortfall_and_the_change(plans: ModuleType) -> None:
    shown = render_no_plan(no_plan(plans))
    assert "5.0 GiB too much" in shown and "set distributed.offload to optimizer" in shown
    made, nearest = no_plan_dict(no_plan(plans)), no_plan(plans).nearest[0]
    assert nearest.estimate is not None
    memory = nearest.estimate.memory
    short = memory.device_used_bytes - int(memory.capacity_bytes * 0.97)  # policy.memory_safety stays free
    assert made["plan"] is None and made["nearest"][0]["shortfall_bytes"] == short > 5 << 30


def test_where_rules_refused_everything_their_fixes_are_shown(plans: ModuleType) -> None:
    ruled = replace(no_plan(plans), rejections=plans.cpu_ddp_lora().rejections[-1:], smallest_change=None)
    shown = render_no_plan(ruled)
    assert "set training.optimizer to adamw_torch_fused" in shown
    assert "Smallest change that fits" not in shown  # none was tried that does


def test_what_was_looked_up_is_told_where_nothing_fits_too(plans: ModuleType) -> None:
    warned = replace(no_plan(plans), warnings=("no inventory was given",))
    assert "Warnings\n  no inventory was given\n" in render_no_plan(warned)
    assert no_plan_dict(warned)["warnings"] == ["no inventory was given"]


def test_no_shortfall_where_a_rule_refused(plans: ModuleType) -> None:
    assert shortfall_bytes(plans.cpu_ddp_lora().rejections[-1]) is None


def test_text_fits_a_terminal_and_has_what_matters(plan: Plan) -> None:
    shown = render_plan(plan)
    lines = shown.splitlines()
    assert len(lines) <= 60 and max(map(len, lines)) <= WIDTH
    for needed in ("fastest that fits", "Memory at the peak (loss)", "margin 2.0 GiB", "Runners-up", "MUON_DEEPSPEED"):
        assert needed in shown, needed


def test_color_only_when_asked(plans: ModuleType) -> None:
    plan = plans.hostile(plans.cpu_ddp_lora())  # its values hold escape sequences of their own
    assert "\x1b" not in render_plan(plan)
    assert BOLD in render_plan(plan, color=True)
    assert "\x1b[31mnext" not in render_plan(plan, color=True)


def test_a_dry_run_pays_for_no_template_engine() -> None:
    code = "import sys, axoc.emit.terminal, axoc.emit.plan_json, axoc.emit.bundle, axoc.emit.write; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"jinja2", "rich", "torch", "pydantic", "yaml"} & set(done.stdout.split())


def test_uncounted_rows_stand_beside_the_disk_and_not_among_the_warnings(plan: Plan) -> None:
    """Every plan without a lock has them: what is always warned of is read by nobody."""
    shown = render_plan(replace(plan, warnings=(f"{UNCOUNTED} are not counted", "look at this")))
    disk = next(line for line in shown.splitlines() if line.lstrip().startswith("disk "))
    assert "GiB and prepared rows" in disk
    assert "look at this" in shown and "are not counted" not in shown
    assert "and prepared rows" not in render_plan(plan)
