"""Plans made by hand: a CPU LoRA run under DDP, a full ZeRO-3 run on 8 H100, an FSDP run of experts on 2 nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from axoc.ir.candidate import Candidate
from axoc.ir.estimate import Estimate, LedgerItem, MemoryEstimate, TimeEstimate
from axoc.ir.facts import AcceleratorFacts, ClusterFacts, DataFacts, ModelFacts, MoeFacts
from axoc.ir.plan import Decision, Plan, Rejection, Schedule, Scored
from axoc.ir.request import (
    AUTO,
    AdapterRequest,
    DatasetRequest,
    DistributedRequest,
    ExportRequest,
    ModelRequest,
    PlanRequest,
    PolicyRequest,
    SampleRequest,
    TargetRequest,
    TrainingRequest,
)

GIB = 1 << 30
HOSTILE = "$(touch pwned); `id` | # <script>alert(1)</script> {{ 7*7 }} ${HOME} '\" \\ *x* [a](http://b) \x1b[31m\nnext"


def cpu_ddp_lora() -> Plan:
    return _plan(
        model=_llama(hidden_size=576, layers=30),
        cluster=_cluster("cpu", vendor="cpu", memory_bytes=16 * GIB, per_node=2),
        candidate=_candidate(strategy="ddp", world_size=2, dtype="float32", mixed_precision="no", accelerator="cpu"),
        adapter=AdapterRequest(type="lora", rank=16, alpha=32.0, dropout=0.0, targets="all-linear"),
        parameters=134_515_008,
        trainable=4_884_480,
        price=None,
    )


def zero3_8xh100() -> Plan:
    return _plan(
        model=_llama(hidden_size=8192, layers=80),
        cluster=_cluster("h100-sxm-80gb", vendor="nvidia", memory_bytes=81_559 << 20, per_node=8),
        candidate=_candidate(
            strategy="zero3",
            world_size=8,
            dtype="bfloat16",
            mixed_precision="bf16",
            accelerator="h100-sxm-80gb",
            gradient_checkpointing="full",
            checkpointed_layers=80,
            offload="optimizer",
        ),
        adapter=None,
        parameters=70_553_706_496,
        trainable=70_553_706_496,
        price=412.5,
    )


def fsdp_moe_2x8h200() -> Plan:
    return _plan(
        model=_mixtral(),
        cluster=_cluster("h200-sxm-141gb", vendor="nvidia", memory_bytes=143_771 << 20, per_node=8, nodes=2),
        candidate=_candidate(
            strategy="fsdp", world_size=16, dtype="bfloat16", mixed_precision="bf16", accelerator="h200-sxm-141gb"
        ),
        adapter=AdapterRequest(type="lora", rank=8, alpha=16.0, dropout=0.05, targets=("q_proj", "v_proj")),
        parameters=46_702_792_704,
        trainable=6_815_744,
        price=38.0,
    )


def with_candidate(plan: Plan, **changes: Any) -> Plan:
    """The same plan with another chosen candidate."""
    chosen = replace(plan.chosen, candidate=replace(plan.chosen.candidate, **changes))
    return replace(plan, chosen=chosen, candidates=(chosen, *plan.candidates[1:]))


def hostile(plan: Plan) -> Plan:
    """The same plan where every text that a user writes is an attack."""
    dataset = replace(plan.request.datasets[0], path=HOSTILE, system_prompt=HOSTILE, type=HOSTILE)
    request = replace(
        plan.request,
        name=HOSTILE,
        model=replace(plan.request.model, id=HOSTILE, revision=HOSTILE),
        datasets=(dataset,),
        samples=SampleRequest(prompts=(HOSTILE,)),
        output_dir=HOSTILE,
    )
    decision = Decision(field="name", value=HOSTILE, because=HOSTILE, source="user")
    refused = replace(plan.rejections[0], reason=HOSTILE, fix=HOSTILE, link="javascript:alert(1)")
    return replace(
        plan,
        request=request,
        model=replace(plan.model, id=HOSTILE),
        decisions=(*plan.decisions, decision),
        rejections=(refused,),
        warnings=(HOSTILE,),
    )


def estimate(
    *, used_bytes: int, capacity_bytes: int, cost_usd: float | None = None, step_seconds: float = 2.5
) -> Estimate:
    memory = MemoryEstimate(
        peak_allocated_bytes=used_bytes - 2 * GIB,
        peak_reserved_bytes=used_bytes - GIB,
        device_used_bytes=used_bytes,
        capacity_bytes=capacity_bytes,
        peak_phase="loss",
        ledger=(LedgerItem(item="weights", bytes=used_bytes - 3 * GIB), LedgerItem(item="logits", bytes=GIB)),
        phases=(LedgerItem(item="load", bytes=GIB), LedgerItem(item="loss", bytes=used_bytes - 2 * GIB)),
        host_bytes=9 * GIB,
        disk_bytes=5 * GIB,
    )
    time = TimeEstimate(
        step_seconds=step_seconds,
        breakdown=(("matmul", 0.6 * step_seconds), ("communication", 0.4 * step_seconds)),
        tokens_per_second=3276.8,
        mfu=0.41,
        total_steps=120,
        total_seconds=120 * step_seconds,
        cost_usd=cost_usd,
    )
    return Estimate(memory=memory, time=time, memory_error_band=0.05, time_error_band=0.2)


def _plan(
    *,
    model: ModelFacts,
    cluster: ClusterFacts,
    candidate: Candidate,
    adapter: AdapterRequest | None,
    parameters: int,
    trainable: int,
    price: float | None,
) -> Plan:
    capacity = cluster.accelerator.memory_bytes
    chosen = Scored(
        candidate=candidate, estimate=estimate(used_bytes=capacity - 2 * GIB, capacity_bytes=capacity, cost_usd=price)
    )
    slower = Scored(
        candidate=replace(candidate, micro_batch_size=1, gradient_accumulation_steps=4),
        estimate=estimate(used_bytes=capacity - 4 * GIB, capacity_bytes=capacity, cost_usd=price, step_seconds=3.1),
    )
    return Plan(
        request=_request(adapter, candidate),
        spec_digest="sha256:" + "ab" * 32,
        model=model,
        cluster=cluster,
        data=(DataFacts(path="data/train.jsonl", rows=1000),),
        chosen=chosen,
        schedule=Schedule(
            total_steps=120, eval_steps=None, save_steps=60, parameters=parameters, trainable_parameters=trainable
        ),
        decisions=_decisions(candidate),
        candidates=(chosen, slower),
        rejections=_rejections(candidate, capacity),
        warnings=("prices are of 2026-11-01",),
    )


def _decisions(candidate: Candidate) -> tuple[Decision, ...]:
    return (
        Decision(field="training.epochs", value=1.0, because="you set it", source="user"),
        Decision(field="distributed.type", value=candidate.strategy, because="fastest that fits", source="search"),
        Decision(field="training.max_grad_norm", value=1.0, because="the usual value", source="default"),
    )


def _rejections(candidate: Candidate, capacity: int) -> tuple[Rejection, ...]:
    single = replace(candidate, gradient_checkpointing="none", checkpointed_layers=0)
    too_large = estimate(used_bytes=capacity + 5 * GIB, capacity_bytes=capacity)
    memory = Rejection(
        candidate=single,
        rule="memory",
        reason="5.0 GiB too much",
        fix="use checkpointing",
        link=None,
        estimate=too_large,
    )
    ruled = Rejection(
        candidate=single,
        rule="MUON_DEEPSPEED",
        reason="Muon does not run under DeepSpeed",
        fix="set training.optimizer to adamw_torch_fused",
        link="https://github.com/deepspeedai/DeepSpeed/issues/1",
    )
    return (memory,) * 60 + (ruled,)


def _request(adapter: AdapterRequest | None, candidate: Candidate) -> PlanRequest:
    return PlanRequest(
        name="demo",
        model=ModelRequest(
            id="org/model",
            revision="0" * 40,
            config=None,
            type="auto",
            dtype=candidate.dtype,
            attention="auto",
            kernels="auto",
            compile=AUTO,
            quantization=None,
            trust_remote_code=False,
        ),
        adapter=adapter,
        datasets=(
            DatasetRequest(
                path="data/train.jsonl",
                type="alpaca",
                weight=1.0,
                validation_split=0.1,
                split_seed=42,
                system_prompt=None,
                support_tool_calls=False,
                max_seq_length=512,
                packing=AUTO,
                streaming=False,
            ),
        ),
        training=TrainingRequest(
            objective="sft",
            epochs=1.0,
            max_steps=None,
            global_batch_size=AUTO,
            micro_batch_size=AUTO,
            gradient_accumulation_steps=AUTO,
            gradient_checkpointing=AUTO,
            checkpoint_above_parameters=None,
            optimizer="adamw_torch_fused",
            learning_rate=2e-5,
            lr_scheduler="cosine",
            warmup_ratio=0.03,
            weight_decay=0.0,
            max_grad_norm=1.0,
            seed=42,
            logging_steps=10,
            eval_steps=AUTO,
            save_steps=AUTO,
            early_stopping_patience=None,
        ),
        eval_metrics=("perplexity",),
        distributed=DistributedRequest(
            type="auto",
            gpu_count=None,
            model_parallel_size=1,
            replicate_degree="auto",
            min_unit_parameters="auto",
            mixed_precision=candidate.mixed_precision,
            memory_budget_per_gpu_bytes=None,
            offload=AUTO,
            config_path=None,
        ),
        export=ExportRequest(formats=(), quantization="none"),
        tracking=("tensorboard",),
        output_dir="axoc-output",
        logging_level="INFO",
        target=TargetRequest(),
        policy=PolicyRequest(),
        samples=SampleRequest(prompts=("What is a dataclass?",)),
        plugins=(),
        explicit=frozenset({"training.epochs"}),
    )


def _candidate(
    *, strategy: Any, world_size: int, dtype: str, mixed_precision: str, accelerator: str, **changes: Any
) -> Candidate:
    plain = Candidate(
        strategy=strategy,
        world_size=world_size,
        data_parallel=world_size,
        tensor_parallel=1,
        micro_batch_size=2,
        gradient_accumulation_steps=2,
        gradient_checkpointing="none",
        checkpointed_layers=0,
        attention="sdpa",
        kernels="none",
        compile=False,
        packing=False,
        optimizer="adamw_torch_fused",
        offload="none",
        quantization="none",
        dtype=dtype,
        mixed_precision=mixed_precision,
        accelerator=accelerator,
    )
    return replace(plain, **changes)


def _llama(*, hidden_size: int, layers: int) -> ModelFacts:
    return ModelFacts(
        id="org/model",
        family="llama",
        model_type="llama",
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_layers=layers,
        num_heads=hidden_size // 64,
        num_kv_heads=hidden_size // 192,
        head_dim=64,
        vocab_size=49_152,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        gated_mlp=True,
        activation="silu",
        norm="rmsnorm",
        norms_per_layer=2,
        final_norm=True,
        qk_norm="none",
        attention_bias=False,
        attention_output_bias=False,
        mlp_bias=False,
        learned_positions=False,
        lm_head_bias=False,
        decoder_block="LlamaDecoderLayer",
    )


def _mixtral() -> ModelFacts:
    experts = MoeFacts(num_experts=8, experts_per_token=2, expert_intermediate_size=14_336)
    plain = _llama(hidden_size=4096, layers=32)
    return replace(plain, family="mixtral", model_type="mixtral", decoder_block="MixtralDecoderLayer", moe=experts)


def _cluster(name: str, *, vendor: str, memory_bytes: int, per_node: int, nodes: int = 1) -> ClusterFacts:
    accelerator = AcceleratorFacts(
        name=name,
        vendor=vendor,
        architecture="generic",
        compute_capability=(0, 0),
        memory_bytes=memory_bytes,
        memory_bandwidth_bytes_per_second=1e12,
        dense_flops_per_second={"bfloat16": 1e14},
        link_bandwidth_bytes_per_second=1e11,
        link_kind="nvlink",
        context_bytes=0,
    )
    return ClusterFacts(
        accelerator=accelerator,
        accelerators_per_node=per_node,
        nodes=nodes,
        host_memory_bytes=64 * GIB,
        disk_bytes=None,
        network_bandwidth_bytes_per_second=1e10,
        network_kind="ethernet",
        price_usd_per_accelerator_hour=None,
        price_source="none",
        cpu_cores_per_node=2 * per_node,
    )
