"""Host memory of exports and of preparing data, against arithmetic by hand from what the runtime does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from asking import LORA, facts, plan, request
from axoc.cost.exporting import HOLDS, exporting_bytes
from axoc.cost.preparing import ENCODER_BYTES, READER_BYTES, preparing_bytes
from axoc.cost.scenario import Scenario
from axoc.facts.exports import FORMATS, scratch_bytes_a_parameter
from axoc.ir.facts import RowLengths
from axoc.ir.plan import NoPlan, Plan
from axoc.search.choose import scenarios, search

MIB = 1 << 20


def scenario(model: str = "Qwen/Qwen2.5-0.5B", inventory: str = "h100-sxm-80gb", **changes: Any) -> Scenario:
    asked = {k: changes.pop(k) for k in [k for k in changes if "__" in k or k == "adapter"]}
    made = request(model, **asked)
    return replace(scenarios(made, facts(made, inventory))[0][0].variant(0), **changes)


def test_the_trained_model_is_read_into_fp32_beside_no_exported_one_but_its_logits_are_kept() -> None:
    s = scenario(exports=(("gguf", 2.0),))
    n, row = s.sizes.total, 4 * 256 * s.model.vocab_size
    logits = min(4 * row, 256 * MIB)
    assert exporting_bytes(s) == pytest.approx(max(4 * n, 10 * s.sizes.vocabulary_matrix + logits) + logits + 6 * row)
    mapped = exporting_bytes(replace(s, dtype="float32"))
    assert mapped == pytest.approx(10 * s.sizes.vocabulary_matrix + 2 * logits + 6 * row), (
        "weights in fp32 need no copy"
    )
    assert exporting_bytes(replace(s, exports=())) == 0


def test_a_model_that_the_host_has_no_room_for_in_fp32_is_checked_as_it_is_stored() -> None:
    s = scenario(exports=(("safetensors", 2.0),))
    small = replace(s, cluster=replace(s.cluster, host_memory_bytes=4 * s.sizes.total))
    assert exporting_bytes(s) - exporting_bytes(small) == pytest.approx(4 * s.sizes.total)


def test_a_program_that_formats_share_stays_for_those_that_come_after_it() -> None:
    apart, after = (exporting_bytes(scenario(exports=e)) for e in ((("ort", 5.0),), (("openvino", 2.0), ("ort", 5.0))))
    assert after - apart == pytest.approx(4 * scenario().sizes.total)
    plain = scenario(exports=(("pytorch", 2.0), ("gguf", 2.0)))
    assert exporting_bytes(plain) == pytest.approx(exporting_bytes(replace(plain, exports=plain.exports[:1])))


def test_every_format_has_a_term_or_is_a_graph() -> None:
    graphs = {"onnx", "ort", "openvino", "tensorrt"}
    assert set(FORMATS) - graphs - {"mlx"} <= set(HOLDS)


def test_an_export_that_the_node_has_no_memory_for_is_refused_before_it_runs() -> None:
    made = request("meta-llama/Meta-Llama-3-8B", adapter=LORA)
    made = replace(made, export=replace(made.export, formats=("openvino",)))
    known = facts(made, "h100-sxm-80gb")
    with_memory = [
        replace(
            known, clusters=tuple(replace(c, host_memory_bytes=n << 30, host_memory_given=True) for c in known.clusters)
        )
        for n in (64, 256)
    ]
    refused, fits = (search(made, k) for k in with_memory)
    assert isinstance(fits, Plan) and isinstance(refused, NoPlan)
    (reason, *_) = [r.reason for r in refused.rejections if r.rule == "host-memory"]
    assert "in export for formats and what checks them" in reason


def test_as_many_processes_encode_as_the_node_has_processors_but_32() -> None:
    s = replace(scenario(), data_rows=None, data_bytes=None)
    each = ENCODER_BYTES + 2048 * 2048 * 56  # rows of at most 2,048 tokens
    both = [preparing_bytes(replace(s, cluster=replace(s.cluster, cpu_cores_per_node=n))) for n in (2, 16, 32, 64)]
    assert np.diff(both[:3]) == pytest.approx([14 * each, 16 * each]) and both[2] == both[3]
    assert both[0] == READER_BYTES + 1244 * s.model.vocab_size + 2 * each
    few = replace(s, data_rows=1000, data_bytes=300_000)
    one = ENCODER_BYTES + 1000 * (2 * 300 + 300 * 56)
    assert preparing_bytes(few) == READER_BYTES + 1244 * s.model.vocab_size + one, "a single unit: no process"
    lengths = RowLengths(tokens=(100.0,), shares=(1.0,), source="counted")
    assert preparing_bytes(replace(few, lengths=lengths)) == pytest.approx(preparing_bytes(few) - 1000 * 200 * 56)


def test_the_phases_of_a_plan_begin_with_prepare_and_have_export_where_there_is_one() -> None:
    made = plan("Qwen/Qwen2.5-0.5B", "cpu", adapter=LORA)
    assert isinstance(made, Plan)
    assert [p.phase for p in made.chosen.estimate.memory.host_by_phase] == [
        "prepare",
        "load",
        "train",
        "save",
        "finish",
    ]


@pytest.mark.parametrize(
    ("formats", "scratch"), [(("ort",), 4), (("onnx", "ort"), 0), (("mlx:int4", "gguf"), 2), (("gguf",), 0), ((), 0)]
)
def test_what_formats_are_made_from_takes_disk_until_all_are_made(formats: tuple[str, ...], scratch: float) -> None:
    assert scratch_bytes_a_parameter(formats, 2.0) == scratch
