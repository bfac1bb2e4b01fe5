"""Pitfalls that the emitter meets: what a bundle's configuration says, and what a hand-written one may not."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from asking import LORA, plan
from axoc.emit.deepspeed import deepspeed_config
from axoc.emit.fsdp import fsdp_config
from axoc.emit.job import job_dict
from axoc.emit.user_config import checked_user_config
from axoc.errors import UserError
from axoc.ir.plan import NoPlan, Plan
from axoc.ir.request import QuantizationRequest

ROOT = Path(__file__).resolve().parents[3]
QWEN, EIGHT = "Qwen/Qwen2.5-0.5B", "h100-sxm-80gb:8"


def of_strategy(strategy: str, **changes: object) -> Plan:
    made = plan(QWEN, EIGHT, distributed__type=strategy, **changes)
    assert isinstance(made, Plan)
    distributed = replace(made.request.distributed, config_path="own.json")
    return replace(made, request=replace(made.request, distributed=distributed))


@pytest.mark.parametrize(
    ("strategy", "config"),
    [
        ("fsdp", {"state_dict_type": "FULL_STATE_DICT"}),  # 33, 34
        ("fsdp", {"fsdp_state_dict_type": "FULL_STATE_DICT"}),
        ("fsdp", {"fsdp_version": 1}),  # 22, 23
        ("fsdp", {"version": 1}),
        ("fsdp", {"transformer_layer_cls_to_wrap": "LlamaDecoderLayer"}),  # 21
        ("fsdp", {"fsdp_transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]}),
        ("fsdp", {"cpu_ram_efficient_loading": True}),  # 24
        ("zero2", {"gradient_clipping": True}),  # 17: of the right value, and of another type
        ("zero2", {"train_micro_batch_size_per_gpu": 999}),
    ],
)
def test_a_hand_written_config_that_contradicts_the_plan_is_refused(strategy: str, config: dict[str, object]) -> None:
    with pytest.raises(UserError) as caught:
        checked_user_config(of_strategy(strategy), json.dumps(config))
    (problem,) = caught.value.diagnostics
    (key,) = config
    assert problem.message.startswith(key) and problem.fix and problem.file == "own.json"


@pytest.mark.parametrize(
    ("strategy", "config"),
    [
        ("fsdp", {"fsdp_version": 2, "fsdp_state_dict_type": "SHARDED_STATE_DICT"}),
        ("fsdp", {"version": 2, "transformer_layer_cls_to_wrap": "Qwen2DecoderLayer"}),
        ("fsdp", {"transformer_layer_cls_to_wrap": ["Qwen2DecoderLayer"]}),
        ("zero2", {"gradient_clipping": 1.0, "zero_optimization": {"stage": 2}}),
        ("zero2", {"gradient_clipping": "auto"}),
    ],
)
def test_one_that_agrees_is_used_as_it_is(strategy: str, config: dict[str, object]) -> None:
    text = json.dumps(config)
    assert checked_user_config(of_strategy(strategy), text) == text


def test_shards_are_saved_as_shards_and_nothing_is_left_to_a_default() -> None:
    config = fsdp_config(of_strategy("fsdp")).as_dict()
    assert config["fsdp_version"] == 2
    assert config["state_dict_type"] == "SHARDED_STATE_DICT"
    assert config["cpu_ram_efficient_loading"] is False
    assert config["transformer_layer_cls_to_wrap"] == ["Qwen2DecoderLayer"]


def test_zero3_gathers_weights_to_save_and_below_it_nothing_overlaps() -> None:
    three, two = (deepspeed_config(of_strategy(s)).as_dict()["zero_optimization"] for s in ("zero3", "zero2"))
    assert three["stage3_gather_16bit_weights_on_model_save"] is True
    assert two["overlap_comm"] is False and "stage3_gather_16bit_weights_on_model_save" not in two


def test_offload_compiles_no_cpu_adam() -> None:
    config = deepspeed_config(of_strategy("zero2", distributed__offload="optimizer")).as_dict()
    assert config["zero_force_ds_cpu_optimizer"] is False and config["zero_allow_untested_optimizer"] is True
    assert "optimizer" not in config


def test_one_source_of_settings() -> None:
    """A DeepSpeed plan's job names the file and repeats its figures; nothing is taken from accelerate's own files."""
    made = of_strategy("zero2")
    job, config = job_dict(made), deepspeed_config(made).as_dict()
    assert job["distributed"]["config"] == "config/deepspeed.json"
    assert config["train_micro_batch_size_per_gpu"] == job["training"]["micro_batch_size"]
    launch = (ROOT / "templates/axoc_templates/launch.sh").read_text()
    assert "accelerate launch" not in launch and "axoc_runtime.torchrun" in launch


def test_weights_that_are_stored_quantized_are_planned_as_they_are_stored_or_refused() -> None:
    four = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    single = QuantizationRequest(method="nf4", double_quantization=False)
    made = plan(QWEN, EIGHT, stored=four, adapter=LORA)
    asked = plan(QWEN, EIGHT, adapter=LORA, model__quantization=single)
    assert isinstance(made, Plan) and isinstance(asked, Plan)
    assert made.chosen.candidate.quantization == "nf4"
    assert (
        made.chosen.estimate.memory == asked.chosen.estimate.memory
    )  # nested scales are stored or not, as the files say
    assert job_dict(made)["model"]["quantization"]["double_quantization"] is False
    packed = plan(QWEN, EIGHT, stored={"quant_method": "compressed-tensors"}, adapter=LORA)
    exact = plan(QWEN, EIGHT, adapter=LORA)
    assert isinstance(packed, Plan) and isinstance(exact, Plan)
    assert packed.chosen.candidate.quantization == "none"
    assert packed.chosen.estimate.memory == exact.chosen.estimate.memory  # decompressed when they are loaded
    for method in ("gptq", "awq", "hqq"):
        refused = plan(QWEN, EIGHT, stored={"quant_method": method}, adapter=LORA)
        assert isinstance(refused, NoPlan)
        (found, *_) = [r for r in refused.rejections if r.rule == "stored-quantization-unread"]
        assert f"({method})" in found.reason and "nf4" in found.fix and found.link


def test_flash_attention_is_planned_with_a_warning_that_no_lock_has_it() -> None:
    made, plain = plan(QWEN, EIGHT, model__attention="flash_attention_2"), plan(QWEN, EIGHT)
    assert isinstance(made, Plan) and isinstance(plain, Plan)
    assert [w for w in made.warnings if "no lock pins flash-attn" in w]
    assert not [w for w in plain.warnings if "flash" in w]


def test_every_shipped_spec_is_planned_for_its_golden_and_one_is_run() -> None:
    """Planned and emitted on each test run; the quickstart is trained on by tests/e2e and `make run`."""
    sys.path.insert(0, str(ROOT / "tools"))
    import golden

    shipped = {p.relative_to(ROOT).as_posix() for p in (ROOT / "specs").glob("*.yaml")}
    assert shipped == {pair["spec"] for pair in golden.read_pairs().values()}
    assert "specs/quickstart.yaml" in (ROOT / "Makefile").read_text()
    assert "quickstart" in (ROOT / "tests/e2e/test_quickstart.py").read_text()


def test_evaluation_has_a_peak_of_its_own_at_the_longest_row() -> None:
    """At the micro-batch and at max_seq_length: no sample that comes late can be larger."""

    def evaluation(**changes: object) -> int:
        made = plan(QWEN, "h100-sxm-80gb", model__kernels="none", training__micro_batch_size=4, **changes)
        assert isinstance(made, Plan)
        return {p.item: p.bytes for p in made.chosen.estimate.memory.phases}["evaluate"]

    assert evaluation() > evaluation(dataset__validation_split=0.0)
    assert evaluation() > evaluation(dataset__max_seq_length=1024)
