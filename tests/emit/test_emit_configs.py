"""job.json, config/* and requirements.lock: complete, consistent with each other, accepted by those who read them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from axoc.emit.bundle import build_bundle
from axoc.emit.deepspeed import deepspeed_config
from axoc.emit.fsdp import fsdp_config
from axoc.emit.job import job_dict
from axoc.emit.launcher import launch_environment
from axoc.emit.moe import MOE_BLOCKS
from axoc.emit.requirements import requirements_lock, split_entries
from axoc.errors import UserError
from axoc.ir.plan import Plan
from axoc.ir.request import QuantizationRequest

DOCS = Path(__file__).parents[2] / "docs" / "job.md"


def documented_job() -> dict[str, Any]:
    """The example of docs/job.md, without its comments."""
    (block, *_) = re.findall(r"```json\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [re.sub(r"(?<!:)//.*$", "", line) for line in block.splitlines()]
    text = re.sub(r'"adapter": null\s', '"adapter": null,', "\n".join(lines))
    parsed = json.loads(text)
    assert isinstance(parsed, dict)
    return parsed


def keys(value: Any) -> Any:
    return {name: keys(item) for name, item in value.items()} if isinstance(value, dict) else None


def test_job_has_the_documented_keys_and_no_others(plan: Plan) -> None:
    job, documented = job_dict(plan), documented_job()
    assert list(job) == list(documented)
    for section in ("training", "samples", "distributed", "export", "prediction", "expect"):
        assert keys(job[section]) == keys(documented[section]), section
    assert set(job["model"]) == set(documented["model"])
    assert set(job["datasets"][0]) == set(documented["datasets"][0])


def test_nothing_in_a_bundle_is_left_to_be_chosen(plan: Plan, fake_runtime: None) -> None:
    bundle = build_bundle(plan, "", "")
    for file in bundle.files:
        if file.path.startswith("config/") or file.path == "job.json":
            assert '"auto"' not in file.content.decode(), file.path


def test_batch_is_micro_times_accumulation_times_data_parallel(plan: Plan) -> None:
    job = job_dict(plan)
    training, distributed = job["training"], job["distributed"]
    product = training["micro_batch_size"] * training["gradient_accumulation_steps"] * distributed["data_parallel"]
    assert training["global_batch_size"] == product
    assert distributed["nodes"] * distributed["processes_per_node"] == distributed["world_size"]


def test_quantization_keeps_the_users_options_for_the_users_method(plans: ModuleType) -> None:
    plan = plans.with_candidate(plans.cpu_ddp_lora(), quantization="nf4")
    assert job_dict(plan)["model"]["quantization"] == {"method": "nf4", "double_quantization": True, "options": {}}
    asked = QuantizationRequest(method="nf4", double_quantization=False)
    model = replace(plan.request.model, quantization=asked)
    plan = replace(plan, request=replace(plan.request, model=model))
    assert job_dict(plan)["model"]["quantization"]["double_quantization"] is False


def test_device_memory_is_expected_of_gpus_only(plans: ModuleType) -> None:
    assert job_dict(plans.cpu_ddp_lora())["expect"]["device_memory_bytes"] == 0
    assert job_dict(plans.zero3_8xh100())["expect"]["device_memory_bytes"] == 81_559 << 20


def test_fewer_processes_than_the_inventory_stay_on_few_nodes(plans: ModuleType) -> None:
    plan = plans.with_candidate(plans.fsdp_moe_2x8h200(), world_size=4, data_parallel=4)
    environment = launch_environment(plan)
    assert (environment.PLAN_NODES, environment.PLAN_PROCESSES_PER_NODE) == (1, 4)


def test_deepspeed_equals_the_trainers_arguments(plans: ModuleType) -> None:
    plan = plans.zero3_8xh100()
    config, job = deepspeed_config(plan).as_dict(), job_dict(plan)
    assert config["train_batch_size"] == job["training"]["global_batch_size"] == 32
    assert config["train_micro_batch_size_per_gpu"] == job["training"]["micro_batch_size"]
    assert config["gradient_accumulation_steps"] == job["training"]["gradient_accumulation_steps"]
    assert config["gradient_clipping"] == job["training"]["max_grad_norm"]
    assert isinstance(config["gradient_clipping"], float)
    assert config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True
    assert config["zero_optimization"]["offload_optimizer"] == {"device": "cpu", "pin_memory": True}
    assert "offload_param" not in config["zero_optimization"]
    assert "optimizer" not in config and config["zero_allow_untested_optimizer"] is True


@pytest.mark.parametrize(
    ("dtype", "mixed_precision", "bf16", "fp16"),
    [
        ("float32", "no", False, False),
        ("float32", "bf16", True, False),
        ("bfloat16", "bf16", True, False),
        ("bfloat16", "no", True, False),
        ("float32", "fp16", False, True),
        ("bfloat16", "fp8", True, False),
    ],
)
def test_deepspeed_precision(plans: ModuleType, dtype: str, mixed_precision: str, bf16: bool, fp16: bool) -> None:
    plan = plans.with_candidate(plans.zero3_8xh100(), dtype=dtype, mixed_precision=mixed_precision)
    config = deepspeed_config(plan).as_dict()
    assert (config["bf16"]["enabled"], config["fp16"]["enabled"]) == (bf16, fp16)


@pytest.mark.parametrize("stage", [1, 2])
def test_overlap_is_off_below_stage_3_and_stage_3_keys_are_absent(plans: ModuleType, stage: int) -> None:
    plan = plans.with_candidate(plans.zero3_8xh100(), strategy=f"zero{stage}", offload="none")
    zero = deepspeed_config(plan).as_dict()["zero_optimization"]
    assert (zero["stage"], zero["overlap_comm"]) == (stage, False)
    assert not [key for key in zero if key.startswith("stage3") or key.startswith("offload")]


def test_experts_are_gathered_whole_under_zero3(plans: ModuleType) -> None:
    plan = plans.with_candidate(plans.fsdp_moe_2x8h200(), strategy="zero3")
    assert deepspeed_config(plan).as_dict()["zero_optimization"]["leaf_module"] == {
        "classes": ["MixtralSparseMoeBlock"]
    }
    unknown = replace(plan, model=replace(plan.model, model_type="new_moe", decoder_block="NewMoeLayer"))
    assert deepspeed_config(unknown).as_dict()["zero_optimization"]["leaf_module"] == {"classes": ["NewMoeLayer"]}


def test_fsdp_has_the_documented_keys(plans: ModuleType) -> None:
    (line,) = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("`config/fsdp.json`")]
    documented = json.loads(line.split("`")[3])
    config = fsdp_config(plans.fsdp_moe_2x8h200()).as_dict()
    assert set(config) - set(documented) == {"cpu_offload"}
    assert set(documented) <= set(config)
    assert config["transformer_layer_cls_to_wrap"] == ["MixtralDecoderLayer"] and config["fsdp_version"] == 2


def with_config_path(plan: Plan) -> Plan:
    distributed = replace(plan.request.distributed, config_path="ds.json")
    return replace(plan, request=replace(plan.request, distributed=distributed))


def test_hand_written_config_is_used_as_it_is(plans: ModuleType, fake_runtime: None) -> None:
    text = '{"train_batch_size": "auto",\n "zero_optimization": {"stage": 3}, "gradient_clipping": 1}'
    bundle = build_bundle(with_config_path(plans.zero3_8xh100()), "", "", config_text=text)
    assert bundle.text("config/deepspeed.json") == text


def test_hand_written_config_that_contradicts_the_plan_is_refused_in_full(
    plans: ModuleType, fake_runtime: None
) -> None:
    text = '{"train_batch_size": 64, "zero_optimization": {"stage": 2}, "bf16": {"enabled": 1}}'
    with pytest.raises(UserError) as raised:
        build_bundle(with_config_path(plans.zero3_8xh100()), "", "", config_text=text)
    messages = [d.message for d in raised.value.diagnostics]
    assert [m.split(" ")[0] for m in messages] == ["train_batch_size", "bf16.enabled", "zero_optimization.stage"]
    assert {d.file for d in raised.value.diagnostics} == {"ds.json"}


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_hand_written_config_that_is_no_object_is_refused(plans: ModuleType, fake_runtime: None, text: str) -> None:
    with pytest.raises(UserError, match="JSON"):
        build_bundle(with_config_path(plans.zero3_8xh100()), "", "", config_text=text)


@pytest.mark.parametrize("profile", ["cpu", "cuda", "rocm"])
def test_every_locked_package_has_a_version_and_hashes(profile: Any) -> None:
    entries = split_entries(requirements_lock(profile))
    assert len(entries) > 50
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==[^\s]+( ; .*)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+$", entry), entry


def test_locks_by_device() -> None:
    cpu, cuda, rocm = (requirements_lock(profile) for profile in ("cpu", "cuda", "rocm"))
    assert not re.search(r"(?m)^(nvidia|cuda|triton)", cpu)
    assert "torch==2.13.0+cpu ; sys_platform == 'linux' and platform_machine == 'x86_64'" in cpu
    assert "torch==2.13.0 ; sys_platform != 'linux' or platform_machine != 'x86_64'" in cpu
    assert "\ntorch==2.11.0 " in cuda and "\nnvidia-nccl" in cuda
    assert not re.search(r"(?m)^(nvidia|cuda|triton|torch=)", rocm)
    for lock in (cpu, cuda):
        assert "transformers==5.17.0 " in lock and "deepspeed==0.19.8 " in lock


ACCEPT = """
import json, sys
from pathlib import Path
from transformers import TrainingArguments
import transformers.models
from deepspeed.runtime.config import DeepSpeedConfig
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

class Arguments:
    world_size, per_device_train_batch_size, gradient_accumulation_steps = 8, 2, 2
    max_grad_norm, learning_rate, weight_decay, adam_beta1, adam_beta2, adam_epsilon = 1.0, 2e-5, 0.0, 0.9, 0.999, 1e-8
    fp16, fp16_full_eval, bf16, bf16_full_eval, save_on_each_node = False, False, True, False, False
    def get_warmup_steps(self, steps): return 0

given = json.loads(sys.argv[1])
for name, config in given["deepspeed"].items():
    hf = HfTrainerDeepSpeedConfig(json.loads(json.dumps(config)))
    hf.trainer_config_process(Arguments())
    hf.trainer_config_finalize(Arguments(), None, 100)
    assert hf.config == config, name
    micro = config["train_micro_batch_size_per_gpu"] * config["gradient_accumulation_steps"]
    parsed = DeepSpeedConfig({**config, "train_batch_size": micro})
    assert parsed.zero_config.stage == config["zero_optimization"]["stage"]
    assert parsed.zero_config.overlap_comm == config["zero_optimization"]["overlap_comm"]
arguments = TrainingArguments("/tmp/unused", fsdp=True, fsdp_config=given["fsdp"], use_cpu=True)
plugin = arguments.fsdp_plugin_args
assert plugin["fsdp_version"] == 2 and plugin["transformer_cls_names_to_wrap"] == "MixtralDecoderLayer", plugin
assert plugin["cpu_offload"] is True and plugin["state_dict_type"] == "SHARDED_STATE_DICT", plugin
root = Path(transformers.models.__file__).parent
for model_type, block in given["moe"].items():
    assert f"class {block}(" in (root / model_type / f"modeling_{model_type}.py").read_text(), block
print("accepted")
"""


@pytest.mark.slow
def test_transformers_and_deepspeed_accept_the_configs(plans: ModuleType) -> None:
    pytest.importorskip("deepspeed", reason="needs the training environment")
    variants = [("zero1", "none"), ("zero2", "optimizer"), ("zero3", "none"), ("zero3", "optimizer+parameters")]
    made = [plans.with_candidate(plans.zero3_8xh100(), strategy=s, offload=o) for s, o in variants]
    offloaded = plans.with_candidate(plans.fsdp_moe_2x8h200(), offload="optimizer+parameters")
    given = {
        "deepspeed": {str(i): deepspeed_config(plan).as_dict() for i, plan in enumerate(made)},
        "fsdp": fsdp_config(offloaded).as_dict(),
        "moe": MOE_BLOCKS,
    }
    command = [sys.executable, "-c", ACCEPT, json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1:] == ["accepted"], done.stderr[-2000:]
