"""A bad spec and a good one for each rule: the good one is the bad one with the rule's fix."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from asking import LORA
from axoc.ir.request import (
    ExportRequest,
    GrpoRequest,
    PreferenceRequest,
    QuantizationRequest,
    RewardRequest,
    SampleRequest,
)

QWEN = "Qwen/Qwen2.5-0.5B"
EIGHT = "h100-sxm-80gb:8"


def stored(method: str) -> dict[str, Any]:
    return {"adapter": LORA, "model__quantization": QuantizationRequest(method=method)}


def preferring(objective: str, reference: str) -> dict[str, Any]:
    preference = PreferenceRequest(beta=0.1, reference=reference)
    return {"training__objective": objective, "training__preference": preference}


DPO = preferring("dpo", "model")


@dataclass(frozen=True, kw_only=True)
class Case:
    rule: str
    bad: dict[str, Any]
    fixed: dict[str, Any]
    """What the fix changes of it."""
    pitfalls: tuple[int, ...] = ()
    model: str = QWEN
    inventory: str = EIGHT
    good_inventory: str | None = None
    shadowed: bool = False
    """Another rule refuses the same before it."""
    keeps: dict[str, Any] = field(default_factory=dict)
    """What both have, and is not at fault."""


def seeing(rule: str, bad: dict[str, Any], fixed: dict[str, Any], pitfalls: tuple[int, ...] = ()) -> Case:
    """Of a model that sees, on rows with images."""
    keeps = {"model__vision": True, "dataset__type": "vision_chat", "dataset__validation_split": 0.0}
    return Case(rule=rule, bad=bad, fixed=fixed, keeps=keeps, model="google/gemma-3-4b-pt", pitfalls=pitfalls)


def exporting(format_: str) -> dict[str, Any]:
    return {"export": ExportRequest(formats=(format_,), quantization="none")}


EIGHT_BIT = {"training__optimizer": "adamw_bnb_8bit"}
FSDP, ZERO2, ZERO3, DDP = ({"distributed__type": t} for t in ("fsdp", "zero2", "zero3", "ddp"))
HALF = {"model__dtype": "float32", "distributed__mixed_precision": "fp16"}
NF4, INT8 = stored("nf4"), stored("int8")
FP8, IN_BF16 = ({"distributed__mixed_precision": p} for p in ("fp8", "bf16"))

GPTQ = {"stored": {"quant_method": "gptq", "bits": 4}}
STORED_NF4 = {"stored": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}
COMPRESSED = {"stored": {"quant_method": "compressed-tensors", "format": "pack-quantized"}}

CASES = (
    Case(rule="stored-quantization-unread", bad=GPTQ | {"adapter": LORA}, fixed=NF4 | {"stored": None}, pitfalls=(6,)),
    Case(
        rule="stored-quantization-kept",
        bad=STORED_NF4 | INT8 | {"explicit": frozenset({"model.quantization"})},
        fixed={"explicit": frozenset(), "model__quantization": None},
    ),
    Case(rule="stored-compressed", bad=COMPRESSED | {"adapter": LORA} | ZERO3, fixed=DDP, pitfalls=(6,)),
    Case(rule="stored-compressed", bad=COMPRESSED | ZERO2, fixed={"adapter": LORA}),
    Case(rule="stochastic-rounding-masters", bad={"training__bf16_update": "stochastic"} | ZERO2, fixed=DDP),
    Case(rule="fsdp-8bit-optimizer", bad=EIGHT_BIT | FSDP, fixed=ZERO2, pitfalls=(1,)),
    Case(rule="quantized-base-sharded", bad=NF4 | FSDP, fixed=DDP, pitfalls=(3,)),
    Case(rule="quantized-base-sharded", bad=INT8 | FSDP, fixed=DDP, pitfalls=(4,)),
    Case(rule="quantized-base-sharded", bad=NF4 | ZERO3, fixed=ZERO2, pitfalls=(8,)),
    Case(
        rule="quantized-base-sharded",
        bad=NF4 | FSDP | {"training__objective": "dpo"},
        fixed=DDP,
        pitfalls=(5,),
    ),
    Case(rule="quantization-method", bad=stored("gptq") | ZERO3, fixed=NF4 | DDP, pitfalls=(6, 39)),
    Case(rule="quantization-method", bad=stored("awq"), fixed=NF4, pitfalls=(39,)),
    Case(
        rule="zero3-checkpointed-adapter",
        bad=ZERO3 | {"adapter": LORA, "training__gradient_checkpointing": "full"},
        fixed=ZERO2,
        pitfalls=(9,),
    ),
    Case(
        rule="zero3-modules-to-save",
        bad=ZERO3 | {"adapter": LORA.__class__(**{**vars(LORA), "modules_to_save": ("lm_head",)})},
        fixed=ZERO2,
        pitfalls=(14,),
        model="meta-llama/Meta-Llama-3-8B",
    ),
    Case(
        rule="batch-arithmetic",
        bad={"training__global_batch_size": 63},
        fixed={"training__global_batch_size": 64},
        pitfalls=(18,),
    ),
    Case(rule="fp8-hardware", bad=FP8, fixed=IN_BF16, inventory="a100-sxm-80gb:8"),
    Case(rule="fp8-hardware", bad=FP8, fixed={}, inventory="mi300x-192gb:8", good_inventory="l4-24gb:8"),
    Case(
        rule="fp8-layers", bad=FP8, fixed=IN_BF16, model="openai-community/gpt2", keeps={"dataset__max_seq_length": 512}
    ),
    Case(rule="fp8-layers", bad=FP8, fixed=IN_BF16, model="tiiuae/falcon-7b", keeps=FSDP),
    Case(rule="fp8-objective", bad=FP8, fixed=IN_BF16, keeps=DPO),
    Case(rule="fp8-quantized", bad=NF4, fixed={"model__quantization": None}, keeps=FP8 | DDP),
    Case(rule="fp8-zero", bad=ZERO2, fixed=FSDP, keeps=FP8),
    Case(rule="fp8-zero", bad=ZERO3, fixed=DDP, keeps=FP8),
    Case(
        rule="fp8-tensor-parallel",
        bad={"distributed__model_parallel_size": 2},
        fixed={"distributed__model_parallel_size": 1},
        keeps=FP8 | FSDP | {"model__kernels": "none"},
    ),
    Case(rule="fp8-compile", bad={"model__compile": False}, fixed={"model__compile": "auto"}, keeps=FP8),
    Case(
        rule="tensor-parallel-8bit-optimizer",
        bad=EIGHT_BIT | DDP | {"distributed__model_parallel_size": 2},
        fixed=FSDP | {"training__optimizer": "adamw_torch_fused"},
        shadowed=True,
        pitfalls=(25,),
    ),
    Case(
        rule="deepspeed-optimizer",
        bad=ZERO2 | {"training__optimizer": "muon"},
        fixed={"training__optimizer": "adamw_torch_fused"},
        pitfalls=(26,),
        shadowed=True,
    ),
    Case(
        rule="runtime-optimizer",
        bad={"training__optimizer": "muon"},
        fixed={"training__optimizer": "adamw_torch_fused"},
        pitfalls=(26,),
    ),
    Case(
        rule="packing-needs-varlen",
        bad={"dataset__packing": True, "model__attention": "sdpa"},
        fixed={"model__attention": "auto"},
        pitfalls=(25, 28, 29),
    ),
    Case(
        rule="pissa-quantized",
        bad=NF4 | {"adapter": replace(LORA, init="pissa")},
        fixed={"adapter": replace(LORA, init="loftq")},
    ),
    Case(
        rule="loftq-four-bit",
        bad=INT8 | {"adapter": replace(LORA, init="loftq")},
        fixed={"model__quantization": QuantizationRequest(method="fp4")},
    ),
    Case(
        rule="dora-changing-init",
        bad={"adapter": replace(LORA, init="pissa", use_dora=True)},
        fixed={"adapter": replace(LORA, use_dora=True)},
    ),
    Case(
        rule="dora-int8",
        bad=INT8 | {"adapter": replace(LORA, use_dora=True)},
        fixed={"model__quantization": QuantizationRequest(method="nf4")},
    ),
    Case(
        rule="adapter-experts",
        bad={"adapter": replace(LORA, dropout=0.05)},
        fixed={"adapter": replace(LORA, dropout=0.05, targets=("q_proj", "v_proj"))},
        model="Qwen/Qwen3-30B-A3B",
    ),
    Case(
        rule="adapter-experts",
        bad={"adapter": replace(LORA, init="pissa")},
        fixed={"adapter": LORA},
        model="Qwen/Qwen3-30B-A3B",
    ),
    Case(
        rule="reference-changing-init",
        bad={"adapter": replace(LORA, init="pissa")} | preferring("dpo", "adapter"),
        fixed={"adapter": LORA},
    ),
    Case(rule="compile-whole-blocks", bad={"model__compile": True} | ZERO3, fixed=FSDP),
    Case(
        rule="compile-whole-blocks",
        bad={"model__compile": True, "distributed__model_parallel_size": 2},
        fixed={"distributed__model_parallel_size": 1},
        keeps=FSDP,
    ),
    Case(
        rule="sampling-sharded",
        bad=FSDP,
        fixed=DDP,
        keeps={
            "training__objective": "grpo",
            "training__grpo": GrpoRequest(
                generations=8,
                max_completion_length=256,
                temperature=1.0,
                beta=0.0,
                reference="none",
                rewards=(RewardRequest(name="answer"),),
            ),
        },
    ),
    Case(
        rule="preference-packing",
        bad={"dataset__packing": True},
        fixed={"dataset__packing": False},
        keeps=DPO,
        pitfalls=(28,),
        shadowed=True,
    ),
    Case(rule="preference-kernels", bad={"model__kernels": "liger"}, fixed={"model__kernels": "none"}, keeps=DPO),
    Case(
        rule="preference-tensor-parallel",
        bad=FSDP | {"distributed__model_parallel_size": 2},
        fixed={"distributed__model_parallel_size": 1},
        keeps=DPO,
        shadowed=True,
    ),
    Case(
        rule="preference-head-adapter",
        bad={"adapter": replace(LORA, modules_to_save=("lm_head",))},
        fixed={"adapter": LORA},
        keeps=DPO,
    ),
    Case(rule="precomputed-reference-fsdp", bad=FSDP, fixed=ZERO3, keeps=preferring("dpo", "precomputed")),
    Case(
        rule="reference-offload",
        bad=ZERO3 | {"distributed__offload": "optimizer+parameters"},
        fixed={"distributed__offload": "optimizer"},
        keeps=DPO,
    ),
    Case(
        rule="preference-metrics",
        bad={"eval_metrics": ("rougeL",), "explicit": frozenset({"eval_metrics"})},
        fixed={"explicit": frozenset()},
        keeps=DPO,
    ),
    Case(
        rule="reward-samples",
        bad={"samples": SampleRequest(prompts=("Why?",))},
        fixed={"samples": SampleRequest()},
        keeps={"training__objective": "reward"},
    ),
    Case(
        rule="flash-needs-ampere",
        bad={"model__attention": "flash_attention_2"},
        fixed={"model__attention": "sdpa"},
        keeps=HALF,
        inventory="t4-16gb:8",
        pitfalls=(31,),
    ),
    Case(
        rule="flash-needs-ampere",
        bad={"model__attention": "flash_attention_2"},
        fixed={},
        keeps=HALF,
        inventory="t4-16gb:8",
        good_inventory="a100-sxm-80gb:8",
        pitfalls=(31,),
    ),
    Case(
        rule="export-architecture",
        bad={"export": ExportRequest(formats=("gguf",), quantization="none")},
        fixed={"export": ExportRequest(formats=("safetensors", "vllm"), quantization="none")},
        model="openai-community/gpt2",
        keeps={"dataset__max_seq_length": 512},
        pitfalls=(41,),
    ),
    Case(
        rule="export-size",
        bad={"export": ExportRequest(formats=("ort",), quantization="none")},
        fixed={"export": ExportRequest(formats=("onnx",), quantization="none")},
        model="meta-llama/Meta-Llama-3-8B",
    ),
    Case(
        rule="export-reward",
        bad={"training__objective": "reward", "export": ExportRequest(formats=("gguf",), quantization="none")},
        fixed={"export": ExportRequest(formats=("safetensors",), quantization="none")},
    ),
    Case(rule="runtime-formats", bad={"dataset__type": "stepwise"}, fixed={"dataset__type": "chat"}),
    seeing("vision-objective", {"training__objective": "pretrain"}, {"training__objective": "sft"}),
    seeing("vision-strategy", FSDP, DDP),
    seeing("vision-strategy", ZERO3, DDP, pitfalls=(13,)),
    seeing("vision-rows", {"dataset__packing": True}, {"dataset__packing": False}),
    seeing("vision-rows", {"dataset__streaming": True}, {"dataset__streaming": False}),
    seeing("vision-modules", {"model__kernels": "liger"}, {"model__kernels": "none"}),
    seeing("vision-modules", {"model__compile": True}, {"model__compile": False}),
    seeing("vision-modules", {"model__attention": "eager"}, {"model__attention": "sdpa"}),
    seeing("vision-modules", NF4, {"model__quantization": None}),
    seeing("vision-answers", {"samples": SampleRequest(prompts=("Why?",))}, {"samples": SampleRequest()}),
    seeing("vision-answers", {"eval_metrics": ("rougeL",)}, {"eval_metrics": ("perplexity",)}),
    seeing("vision-export", exporting("gguf"), exporting("safetensors")),
    Case(
        rule="runtime-streaming",
        bad={"dataset__streaming": True},
        fixed={"dataset__streaming": False},
        keeps={"dataset__validation_split": 0.0, "training__max_steps": 100, "training__epochs": None} | DPO,
        pitfalls=(46,),
    ),
    Case(
        rule="runtime-tensor-parallel",
        bad={"distributed__model_parallel_size": 2},
        fixed={"distributed__model_parallel_size": 1},
        keeps=FSDP,
        model="microsoft/Phi-3-mini-4k-instruct",
    ),
    Case(
        rule="tensor-parallel-kernels",
        bad={"distributed__model_parallel_size": 2, "model__kernels": "liger"},
        fixed={"model__kernels": "none"},
        keeps=FSDP,
    ),
    Case(
        rule="hybrid-shard-needs-fsdp",
        bad=ZERO3 | {"distributed__replicate_degree": 2},
        fixed=FSDP,
    ),
    Case(
        rule="hybrid-shard-divides",
        bad={"distributed__replicate_degree": 8},
        fixed={"distributed__replicate_degree": 2},
        keeps=FSDP,
    ),
    Case(
        rule="learned-positions",
        bad={"dataset__max_seq_length": 2048},
        fixed={"dataset__max_seq_length": 1024},
        model="openai-community/gpt2",
    ),
    Case(
        rule="tensor-parallel-divides",
        bad={"distributed__model_parallel_size": 4},
        fixed={"distributed__model_parallel_size": 2},
    ),
    Case(
        rule="tensor-parallel-in-node",
        bad={"distributed__model_parallel_size": 16},
        fixed={"distributed__model_parallel_size": 8},
        model="meta-llama/Llama-2-7b-hf",
        inventory="h100-sxm-80gb:8x2",
    ),
    Case(
        rule="tensor-parallel-composes",
        bad=ZERO2 | {"distributed__model_parallel_size": 2},
        fixed=FSDP,
    ),
    Case(rule="offload-needs-zero", bad=FSDP | {"distributed__offload": "optimizer"}, fixed=ZERO3),
    Case(rule="offload-needs-zero", bad=DDP | {"distributed__offload": "optimizer"}, fixed=ZERO3),
    Case(
        rule="offload-needs-a-device",
        bad=ZERO2 | {"distributed__offload": "optimizer"},
        fixed={"distributed__offload": "none"},
        keeps={"model__dtype": "float32", "distributed__mixed_precision": "no"},
        inventory="cpu",
    ),
    Case(
        rule="offload-needs-adam",
        bad=ZERO2 | {"distributed__offload": "optimizer", "training__optimizer": "adafactor"},
        fixed={"training__optimizer": "adamw_torch_fused"},
    ),
    Case(rule="bf16-needs-ampere", bad={}, fixed=HALF, inventory="t4-16gb:8"),
    Case(
        rule="fp16-weights",
        bad={"model__dtype": "float16", "distributed__mixed_precision": "fp16"},
        fixed={"model__dtype": "float32"},
    ),
    Case(  # what is trained whole beside an adapter is of the model's dtype
        rule="fp16-weights",
        bad={"model__dtype": "float16", "distributed__mixed_precision": "fp16"},
        fixed={"model__dtype": "float32"},
        keeps={"adapter": replace(LORA, modules_to_save=("lm_head",))},
    ),
    Case(
        rule="liger-needs-gpu",
        bad={"model__kernels": "liger"},
        fixed={"model__kernels": "none"},
        keeps={"model__dtype": "float32", "distributed__mixed_precision": "no"},
        inventory="cpu",
    ),
    Case(
        rule="quantized-needs-adapter",
        bad={"model__quantization": QuantizationRequest(method="nf4")},
        fixed={"adapter": LORA},
    ),
    Case(
        rule="int8-on-cpu",
        bad=stored("int8"),
        fixed=stored("nf4"),
        keeps={"model__dtype": "float32", "distributed__mixed_precision": "no"},
        inventory="cpu",
    ),
)
