"""What the runtime changes of TRL's trainers: rows come prepared, nothing is sent or written beside the run, adapters are
one copy in float32, and the held-out figures can be asked for."""

from __future__ import annotations

from typing import Any, Final

import torch

from axoc_runtime.errors import EXIT_NOT_AS_PLANNED, RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.models.load import decoder_blocks, set_checkpointing
from axoc_runtime.objectives.planned import Planned
from axoc_runtime.objectives.registry import objective_of

REFERENCE_ADAPTER: Final = "ref"
PAD_MULTIPLE: Final = 8
"""Matrix units want multiples of 8."""


def common_arguments(job: Job) -> dict[str, Any]:
    """Of all of TRL's configurations. Checkpointing is set block by block, as planned, so TRL is told of none; and where
    it switches it off for a forward without gradients, it is to come back non-reentrant."""
    dropout = job.adapter is not None and job.adapter.dropout > 0
    return {
        "gradient_checkpointing": False,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "disable_dropout": not dropout,  # TRL's default; a dropout that the spec asks for stays
    }


class TrlTrainer(Planned):
    """Goes before one of TRL's trainers among the bases."""

    ref_model: Any = None

    def __init__(self, job: Job, **kwargs: Any) -> None:
        super().__init__(job, **kwargs)
        _one_adapter(job, self.model)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """`prepare` has, once, before there were ranks."""
        return dataset

    def _send_telemetry(self) -> None:
        """A run tells nobody of itself."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """PLAN.md and metrics.md say more."""

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.job.training.gradient_checkpointing == "selective":
            set_checkpointing(self.job, self.model)  # TRL's forward without gradients brings it back for all blocks
        return super().training_step(model, inputs, *args, **kwargs)

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        logged: dict[str, float] = super().evaluate(self.rows_to_evaluate(eval_dataset), *args, **kwargs)
        return logged

    def held_out(self) -> dict[str, float]:
        """Means over batches of all ranks, as TRL takes them."""
        loop = self.evaluation_loop(self.get_eval_dataloader(), "before", prediction_loss_only=True)
        logged = dict(loop.metrics or {}) | self._taken()
        return objective_of(self.job).measured(logged)

    def _taken(self) -> dict[str, float]:
        """The evaluation's figures that TRL keeps for its next log, taken out of it."""
        kept = self._metrics["eval"]
        found = {f"eval_{name}": sum(values) / len(values) for name, values in kept.items() if values}
        kept.clear()
        return found

    def asserted(self) -> dict[str, Any]:
        """The reference is there where it was planned, and only there; sharded where the policy is."""
        planned = planned_reference(self.job)
        found = "model" if self.ref_model is not None else "none"
        wanted = "model" if planned == "model" else "none"
        if found != wanted:
            message = f"what runs is not what was planned: reference model: planned {wanted}, found {found}"
            raise RuntimeFailure(message, EXIT_NOT_AS_PLANNED, "plan again with axoc plan")
        return {"reference": planned} | _reference_units(self.job, self.ref_model)


def planned_reference(job: Job) -> str:
    """none, adapter, model or precomputed."""
    wanted = job.training.preference or job.training.grpo
    return "none" if wanted is None else wanted.reference


def _reference_units(job: Job, reference: Any) -> dict[str, Any]:
    if reference is None or job.distributed.strategy != "fsdp":
        return {}
    blocks = decoder_blocks(job, reference)
    sharded = sum(type(b).__name__.startswith("FSDP") for b in blocks)
    if sharded != len(blocks):
        message = (
            f"what runs is not what was planned: reference blocks that are FSDP units: {len(blocks)}, found {sharded}"
        )
        raise RuntimeFailure(message, EXIT_NOT_AS_PLANNED, "plan again with axoc plan")
    return {"reference blocks that are FSDP units": sharded}


def _one_adapter(job: Job, model: Any) -> None:
    """A fresh adapter adds nothing, so the reference is the model with it switched off: the copy that TRL makes of an
    adapter (for ones that were trained before) goes. TRL lowers those of quantized models to bfloat16; they are kept in
    float32, as the plan counts them."""
    if job.adapter is None:
        return
    if REFERENCE_ADAPTER in model.peft_config:
        model.delete_adapter(REFERENCE_ADAPTER)
    if job.model.quantization is not None:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()


def reference_model(job: Job, device: torch.device) -> Any:
    """The base, frozen, or None where the plan has none. Under FSDP it is sharded block by block: TRL would make one unit
    of it, and gather all of its weights at once."""
    if planned_reference(job) != "model":
        return None
    from axoc_runtime.models.load import load_base

    model: Any = load_base(job, device)
    model.requires_grad_(False)
    model.eval()
    if job.distributed.strategy == "fsdp":
        shard_reference(job, model)
    return model


def shard_reference(job: Job, model: Any) -> None:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mixed = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(job.distributed.autocast)
    policy = MixedPrecisionPolicy(param_dtype=mixed)
    for block in decoder_blocks(job, model):
        fully_shard(block, mp_policy=policy)
    fully_shard(model, mp_policy=policy)


def with_padding(tokenizer: Any) -> Any:
    """TRL wants a padding token; where the tokenizer names none, the end of the text serves: padding is masked."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
