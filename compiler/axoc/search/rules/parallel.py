"""Rules of strategies, tensor parallelism and offload."""

from __future__ import annotations

from typing import Final

from axoc.search.rules.base import Context, Rule
from axoc.search.rules.versions import Versions
from axoc.search.space import Combination

DEEPSPEED: Final = ("zero1", "zero2", "zero3")


def tensor_divides(context: Context, c: Combination) -> str | None:
    model, tensor = context.scenario.model, c.tensor_parallel
    for name, heads in (("attention heads", model.num_heads), ("key-value heads", model.num_kv_heads)):
        if heads % tensor:
            return f"{heads} {name} cannot be split over {tensor} tensor-parallel ranks"
    return None


def tensor_in_node(context: Context, c: Combination) -> str | None:
    per_node = context.scenario.cluster.accelerators_per_node
    if c.tensor_parallel > per_node:
        return f"{c.tensor_parallel} tensor-parallel ranks would span nodes of {per_node}: each block waits for the network"
    return None


def tensor_plain(context: Context, c: Combination) -> str | None:
    if c.tensor_parallel == 1:
        return None
    if context.request.adapter is not None:
        return "adapters over tensor-parallel weights are not supported by peft with transformers' plans"
    if c.strategy in DEEPSPEED:
        return "DeepSpeed ZeRO does not compose with transformers' tensor-parallel plans; FSDP does"
    if c.strategy != "fsdp":
        return f"{c.strategy} takes no weights that are DTensors, as tensor-parallel ones are; FSDP does"
    return None


def hybrid_strategy(context: Context, c: Combination) -> str | None:
    if c.replicate_degree > 1 and c.strategy != "fsdp":
        return f"{c.strategy} has no copies that are each sharded over a part of the ranks; FSDP has"
    return None


def hybrid_divides(context: Context, c: Combination) -> str | None:
    """Copies of one rank each are not sharded: that is ddp."""
    if c.replicate_degree > 1 and (c.data_parallel % c.replicate_degree or c.data_parallel == c.replicate_degree):
        return (
            f"{c.data_parallel} data-parallel ranks do not make {c.replicate_degree} copies of two or more ranks each"
        )
    return None


def offload_strategy(context: Context, c: Combination) -> str | None:
    if c.offload == "none":
        return None
    if c.strategy not in (*DEEPSPEED, "fsdp"):
        return f"{c.strategy} has nothing to offload: its states are whole tensors of the optimizer"
    if c.strategy == "fsdp" and c.offload == "optimizer":
        return "FSDP2 offloads parameters, gradients and states together (CPUOffloadPolicy)"
    if c.offload == "optimizer+parameters" and c.strategy in ("zero1", "zero2"):
        return f"{c.strategy} keeps whole weights on the device: ZeRO-3 and FSDP offload parameters"
    return None


def offload_on_cpu(context: Context, c: Combination) -> str | None:
    if c.offload != "none" and context.scenario.on_cpu:
        return "offload to the host on a machine whose device is the host"
    return None


def offload_optimizer(context: Context, c: Combination) -> str | None:
    if c.offload != "none" and not context.scenario.optimizer.startswith("adamw_torch"):
        return f"offloaded states are updated on the host by torch's AdamW, and not by {context.scenario.optimizer}"
    return None


def deepspeed_optimizers(context: Context, c: Combination) -> str | None:
    if c.strategy in DEEPSPEED and context.scenario.optimizer == "muon":
        return "Muon needs whole matrices; ZeRO flattens and splits them"
    return None


def eight_bit_fsdp(context: Context, c: Combination) -> str | None:
    """optimizer.py of bitsandbytes 0.50.2: ``get_state_buffer`` makes states like the parameter, a DTensor, and
    ``update_step`` hands both to operators that have no sharding strategy.
    """
    if c.strategy == "fsdp" and context.scenario.optimizer == "adamw_bnb_8bit":
        return "bitsandbytes' 8-bit kernels read raw storages, and FSDP's weights and states are DTensors"
    return None


def eight_bit_tensor_parallel(context: Context, c: Combination) -> str | None:
    if c.tensor_parallel > 1 and context.scenario.optimizer == "adamw_bnb_8bit":
        return "bitsandbytes' 8-bit kernels read raw storages, and tensor-parallel weights are DTensors"
    return None


def checkpointed_adapter(context: Context, c: Combination) -> str | None:
    """The recomputation gathered frozen weights and freed them before torch had compared shapes: 0 against saved.

    Since 0.19.3 (pull request 8148) they are kept until the backward pass has used them
    (partitioned_param_coordinator.py: ``in_checkpoint_recompute``).
    """
    if c.strategy == "zero3" and c.checkpointing != "none" and context.request.adapter is not None:
        return "ZeRO-3 frees frozen weights while checkpointing recomputes them: CheckpointError in the backward pass"
    return None


def whole_modules(context: Context, c: Combination) -> str | None:
    """PEFT copied empty, partitioned weights; since 0.9 it gathers them first, and since 0.15.1 it saves them
    (peft/utils/other.py: ``ModulesToSaveWrapper.update``).
    """
    adapter = context.request.adapter
    if c.strategy == "zero3" and adapter is not None and adapter.modules_to_save:
        return f"{', '.join(adapter.modules_to_save)} trained whole beside an adapter is copied empty under ZeRO-3"
    return None


RULES: Final = (
    Rule(
        id="tensor-parallel-divides",
        check=tensor_divides,
        fix="choose a distributed.model_parallel_size that divides the heads, or auto",
        link=None,
    ),
    Rule(
        id="tensor-parallel-in-node",
        check=tensor_in_node,
        fix="set distributed.model_parallel_size to at most the accelerators of one node",
        link=None,
    ),
    Rule(
        id="tensor-parallel-composes",
        check=tensor_plain,
        fix="set distributed.model_parallel_size: 1, or train without an adapter under FSDP",
        link=None,
        versions=(Versions(library="transformers"), Versions(library="peft")),
    ),
    Rule(
        id="hybrid-shard-needs-fsdp",
        check=hybrid_strategy,
        fix="set distributed.type: fsdp, or distributed.replicate_degree: 1",
        link="https://docs.pytorch.org/docs/2.11/distributed.fsdp.fully_shard.html",
    ),
    Rule(
        id="hybrid-shard-divides",
        check=hybrid_divides,
        fix="set distributed.replicate_degree to a divisor of the data-parallel ranks, smaller than they are, or auto",
        link=None,
    ),
    Rule(
        id="offload-needs-zero",
        check=offload_strategy,
        fix="set distributed.type: zero3, or offload: none",
        link="https://www.deepspeed.ai/tutorials/zero-offload/",
    ),
    Rule(id="offload-needs-a-device", check=offload_on_cpu, fix="set distributed.offload: none", link=None),
    Rule(
        id="offload-needs-adam",
        check=offload_optimizer,
        fix="set training.optimizer: adamw_torch_fused, or offload: none",
        link="https://www.deepspeed.ai/tutorials/zero-offload/",
        versions=(Versions(library="axoc-runtime", first="0.1"),),
    ),
    Rule(
        id="deepspeed-optimizer",
        check=deepspeed_optimizers,
        fix="set training.optimizer: adamw_torch_fused",
        link="https://github.com/hiyouga/LLaMA-Factory/blob/main/src/llamafactory/hparams/parser.py",
        versions=(Versions(library="deepspeed"),),
    ),
    Rule(
        id="fsdp-8bit-optimizer",
        check=eight_bit_fsdp,
        fix="set distributed.type: zero2, or training.optimizer: adamw_torch_fused",
        link="https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1633",
        versions=(Versions(library="bitsandbytes"),),
    ),
    Rule(
        id="tensor-parallel-8bit-optimizer",
        check=eight_bit_tensor_parallel,
        fix="set training.optimizer: adamw_torch_fused, or distributed.model_parallel_size: 1",
        link="https://github.com/axolotl-ai-cloud/axolotl/blob/main/src/axolotl/utils/schemas/validation.py",
        versions=(Versions(library="bitsandbytes"),),
    ),
    Rule(
        id="zero3-checkpointed-adapter",
        check=checkpointed_adapter,
        fix="set distributed.type: zero2, or training.gradient_checkpointing: none",
        link="https://github.com/huggingface/transformers/issues/47254",
        versions=(Versions(library="deepspeed", first="0.10", until="0.19.3"),),
    ),
    Rule(
        id="zero3-modules-to-save",
        check=whole_modules,
        fix="set distributed.type: zero2, or adapter.modules_to_save: []",
        link="https://github.com/deepspeedai/DeepSpeed/issues/7669",
        versions=(Versions(library="peft", until="0.15.1"),),
    ),
)
