"""Each strategy is real: its wrapper and its shards were asserted, a broken plan is stopped, and a run can be resumed.

Equal losses prove nothing by themselves (a library has trained with DDP under the name of FSDP), so what is compared
here is what the runtime found when it looked at the wrapped model.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from e2e.conftest import Launch, parameters, patch_at_import
from runtime.jobs import LORA

pytestmark = pytest.mark.slow

FSDP = {
    "fsdp_version": 2, "transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"], "reshard_after_forward": True,
    "state_dict_type": "SHARDED_STATE_DICT", "cpu_ram_efficient_loading": False, "offload_params": False,
    "cpu_offload": False, "activation_checkpointing": False,
}  # fmt: skip


def zero(stage: int) -> dict[str, Any]:
    """As the compiler emits it, with buckets for a tiny model."""
    stage3 = {
        "stage3_prefetch_bucket_size": 1000, "stage3_param_persistence_threshold": 100,
        "stage3_max_live_parameters": 10**9, "stage3_max_reuse_distance": 10**9, "sub_group_size": 10**9,
        "stage3_gather_16bit_weights_on_model_save": True,
    }  # fmt: skip
    return {
        "train_batch_size": 4, "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 2,
        "gradient_clipping": 1.0, "bf16": {"enabled": False}, "fp16": {"enabled": False},
        "zero_optimization": {
            "stage": stage, "reduce_bucket_size": 100_000, "overlap_comm": False, "contiguous_gradients": True,
            **(stage3 if stage == 3 else {"allgather_bucket_size": 100_000}),
        },
        "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False, "steps_per_print": 2**31 - 1,
    }  # fmt: skip


CONFIGS = {"ddp": None, "fsdp": FSDP, "zero1": zero(1), "zero2": zero(2), "zero3": zero(3)}
WRAPPER = {"ddp": "DistributedDataParallel", "fsdp": "FSDPModule"}


def of_strategy(work: Path, strategy: str, tiny: Path, **more: Any) -> dict[str, Any]:
    """Changes of the base job."""
    changes: dict[str, Any] = {"distributed__strategy": strategy, "expect__trainable_parameters": parameters(tiny)}
    if CONFIGS[strategy] is not None:
        name = "fsdp.json" if strategy == "fsdp" else "deepspeed.json"
        (work / name).write_text(json.dumps(CONFIGS[strategy]))
        changes["distributed__config"] = name
    return changes | more


def metrics(work: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((work / "out" / "metrics.json").read_text())
    return value


@pytest.mark.combination(strategy="{strategy}")
@pytest.mark.parametrize("strategy", CONFIGS)
def test_full_training_is_what_was_planned_and_resumes(work: Path, tiny: Path, runtime: Launch, strategy: str) -> None:
    job = of_strategy(work, strategy, tiny)
    assert runtime("prepare", **job).returncode == 0
    done = runtime("train", **job)
    assert done.returncode == 0, done.stderr[-3000:]
    found = metrics(work)
    assert found["asserted"]["wrapper"] == WRAPPER.get(strategy, "DeepSpeedEngine")
    if strategy in ("fsdp", "zero3"):
        share = next(v for k, v in found["asserted"].items() if k.startswith("share of the weights"))
        assert share == 0.5
    assert found["perplexity_after"] < found["perplexity_before"]
    assert parameters(work / "out" / "final") == parameters(tiny)
    shutil.rmtree(work / "out" / "checkpoint-4")
    (work / "out" / "metrics.json").unlink()
    resumed = runtime("train", "--resume", **job)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert "resuming from" in resumed.stdout and "checkpoint-2" in resumed.stdout
    assert metrics(work)["steps_this_run"] == 2
    assert metrics(work)["eval_loss_after"] == pytest.approx(found["eval_loss_after"], abs=1e-5)


@pytest.mark.combination(strategy="single")
def test_one_process_is_plain_and_joins_no_group(work: Path, tiny: Path, launched: Launch) -> None:
    """torchrun starts it as it starts several; accelerate would wrap it in DDP."""
    alone = {"strategy": "single", "world_size": 1, "processes_per_node": 1, "data_parallel": 1}
    job = {f"distributed__{k}": v for k, v in alone.items()} | {"expect__trainable_parameters": parameters(tiny)}
    job["training__global_batch_size"] = 2
    assert launched("prepare", **job).returncode == 0
    done = launched("train", **job)
    assert done.returncode == 0, done.stderr[-3000:]
    assert metrics(work)["asserted"]["wrapper"] == "none"


@pytest.mark.combination(adapter="lora", strategy="{strategy}")
@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
def test_an_adapter_is_trained_saved_and_merged(work: Path, tiny: Path, runtime: Launch, strategy: str) -> None:
    width = 2 * 64 + 2 * (64 + 32) + 2 * 64 + 2 * (64 + 128) + (128 + 64)  # q, k, v, o, gate, up, down
    job = of_strategy(work, strategy, tiny, adapter=LORA, expect__trainable_parameters=4 * 4 * width)
    for step in ("prepare", "train", "finish"):
        done = runtime(step, **job)
        assert done.returncode == 0, done.stderr[-3000:]
    assert (work / "out" / "adapter" / "adapter_model.safetensors").is_file()
    assert parameters(work / "out" / "final") == parameters(tiny)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "zero3"])
def test_an_adapter_beside_low_weights_is_of_the_dtype_that_is_planned(
    work: Path, tiny: Path, runtime: Launch, strategy: str
) -> None:
    """FSDP2 keeps it in float32 and multiplies it in bfloat16; DeepSpeed has one dtype, also for what it has partitioned. A head
    that is trained whole beside it is of the model's dtype, and merged as it was trained."""
    width = 2 * 64 + 2 * (64 + 32) + 2 * 64 + 2 * (64 + 128) + (128 + 64)
    low = {"model__dtype": "bfloat16", "distributed__mixed_precision": "bf16", "training__max_steps": 2}
    adapter, trained = LORA | {"modules_to_save": ["lm_head"]}, 4 * 4 * width + 104 * 64
    job = of_strategy(work, strategy, tiny, adapter=adapter, expect__trainable_parameters=trained, **low)
    if strategy == "zero3":
        (work / "deepspeed.json").write_text(json.dumps(zero(3) | {"bf16": {"enabled": True}}))
    for step in ("prepare", "train", "finish"):
        done = runtime(step, **job)
        assert done.returncode == 0, done.stderr[-3000:]
    dtype, asserted = "bfloat16" if strategy == "zero3" else "float32", metrics(work)["asserted"]
    assert asserted["dtype of trained weights"] == [dtype]
    assert asserted["dtype of modules that are trained whole"] == ["bfloat16"]


def test_two_strategies_learn_the_same(work: Path, tiny: Path, runtime: Launch) -> None:
    losses = []
    for strategy in ("ddp", "zero3"):
        job = of_strategy(work, strategy, tiny)
        assert runtime("prepare", **job).returncode == 0
        assert runtime("train", **job).returncode == 0
        losses.append(metrics(work)["eval_loss_after"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "both"),
    [
        ({"expect__trainable_parameters": 7}, "trainable parameters: planned 7, found"),
        ({"model__decoder_block": "NoSuchLayer", "training__gradient_checkpointing": "none"}, None),
        ({"training__global_batch_size": 8}, "global batch: planned 8, found 4"),
        (
            {"distributed__world_size": 4, "distributed__data_parallel": 4, "training__global_batch_size": 8},
            "world size: planned 4, found 2",
        ),
    ],
)
def test_what_is_not_as_planned_is_stopped_with_both_values(
    work: Path, tiny: Path, runtime: Launch, changes: dict[str, Any], both: str | None
) -> None:
    job = of_strategy(work, "ddp", tiny) | changes
    assert runtime("prepare", **job).returncode == 0
    done = runtime("train", **job)
    if both is None:
        assert done.returncode == 0
        return
    assert done.returncode != 0
    assert both in done.stderr
    assert (work / "out" / ".exit-code").read_text() == "16\n"


def test_fsdp_that_is_ddp_in_disguise_is_stopped(
    work: Path, tiny: Path, runtime: Launch, environment: dict[str, str]
) -> None:
    """Takes away what makes FSDP real on a CPU: the library then trains with DDP and says nothing. The plan does."""
    code = "import axoc_runtime.strategies.wrap as s\ns.force_fsdp_on_cpu = lambda trainer: None"
    patch_at_import(work, environment, "axoc_runtime.arguments", code)
    job = of_strategy(work, "fsdp", tiny)
    assert runtime("prepare", **job).returncode == 0
    done = runtime("train", **job)
    assert done.returncode != 0
    assert "wrapper: planned FSDPModule, found DistributedDataParallel" in done.stderr
