"""Host memory and disk as limits: known ones refuse, usual ones are preferred and warned of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from asking import LORA, facts, request
from axoc.ir.plan import NoPlan, Plan
from axoc.search.choose import Facts, search

GIB = 1 << 30
BIG = "meta-llama/Meta-Llama-3-70B"


def with_node(known: Facts, **changes: Any) -> Facts:
    return replace(known, clusters=tuple(replace(c, **changes) for c in known.clusters))


def test_700_gb_where_the_node_has_512_is_refused_with_shortfall_and_fix() -> None:
    made = request(BIG, distributed__offload="optimizer", distributed__type="zero3", dataset__max_seq_length=4096)
    known = facts(made, "h100-sxm-80gb:8")
    result = search(made, with_node(known, host_memory_bytes=512 * GIB, host_memory_given=True))
    assert isinstance(result, NoPlan)
    refused = next(r for r in result.rejections if r.rule == "host-memory")
    assert refused.estimate is not None
    short = refused.estimate.memory.host_bytes - 512 * GIB
    assert short > 500 * GIB and f"{short / GIB:.1f} GiB more than there is (512.0 GiB)" in refused.reason
    assert "offloaded" in refused.reason and "host_memory_gb" in refused.fix
    assert isinstance(search(made, with_node(known, host_memory_bytes=2048 * GIB, host_memory_given=True)), Plan)


def test_what_is_only_usual_is_set_aside_with_a_warning_where_nothing_else_fits() -> None:
    made = request(BIG, dataset__max_seq_length=2048)
    result = search(made, facts(made, "h100-sxm-80gb"))  # one of eight: an eighth of the node's memory, 256 GiB
    assert isinstance(result, Plan)
    need = result.chosen.estimate.memory.host_bytes
    told = [w for w in result.warnings if "host memory" in w]
    assert need > 256 * GIB and len(told) == 1 and f"{need / GIB:.1f} GiB" in told[0] and "256.0 GiB" in told[0]
    others = [r.estimate.memory.host_bytes for r in result.rejections if r.rule == "host-memory" and r.estimate]
    assert all(need <= other for other in others)  # the least that does it, not the fastest
    two = search(made, facts(made, "h100-sxm-80gb:2"))
    reasons = [r.reason for r in two.rejections if r.rule == "host-memory"]
    assert reasons and all("more than the plan that needs least of it" in reason for reason in reasons)


def test_the_same_need_is_refused_where_the_inventory_says_how_much_there_is() -> None:
    made = request(BIG, dataset__max_seq_length=2048)
    known = with_node(facts(made, "h100-sxm-80gb"), host_memory_given=True)
    assert isinstance(search(made, known), NoPlan)


def test_usual_memory_is_kept_to_where_something_fits_it() -> None:
    made = request("meta-llama/Meta-Llama-3-8B")
    result = search(made, facts(made, "h100-sxm-80gb"))
    assert isinstance(result, Plan)
    assert result.chosen.estimate.memory.host_bytes <= 256 * GIB
    assert not any("where such nodes usually have" in w for w in result.warnings)


def test_a_disk_that_is_too_small_refuses_and_says_what_fills_it() -> None:
    made = request("meta-llama/Meta-Llama-3-8B", adapter=LORA)
    known = facts(made, "h100-sxm-80gb")
    assert isinstance(search(made, with_node(known, disk_bytes=100 * GIB)), Plan)
    result = search(made, with_node(known, disk_bytes=20 * GIB))
    assert isinstance(result, NoPlan)
    (refused, *_) = [r for r in result.rejections if r.rule == "disk"]
    assert "of disk on each node" in refused.reason and "20.0 GiB" in refused.reason and "disk_gb" in refused.fix


def test_a_margin_counts_the_node_where_its_limits_are_known() -> None:
    made = request("meta-llama/Meta-Llama-3-8B", adapter=LORA)
    known = facts(made, "h100-sxm-80gb")
    guessed, told = search(made, known), search(made, with_node(known, host_memory_given=True, disk_bytes=200 * GIB))
    assert isinstance(guessed, Plan) and isinstance(told, Plan) and guessed.margin and told.margin
    assert guessed.margin.host_free_bytes is None and guessed.margin.disk_free_bytes is None
    memory = told.chosen.estimate.memory
    assert told.margin.host_free_bytes == 256 * GIB - memory.host_bytes
    assert told.margin.disk_free_bytes == 200 * GIB - memory.disk_bytes
