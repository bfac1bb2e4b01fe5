"""What sharding was promised, held against the wrapped model: the mesh, units, shares, and where memory lies."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any

import torch

from axoc_runtime.job import Distributed, Job
from axoc_runtime.models.architecture import unknown
from axoc_runtime.models.load import decoder_blocks
from axoc_runtime.strategies.arguments import read_config
from axoc_runtime.strategies.ranks import rank

Mismatch = tuple[str, Any, Any]
"""What, planned, found."""


def full_size(parameter: Any) -> int:
    """Elements of the whole tensor: ZeRO-3 leaves an empty one and tells its size, bitsandbytes packs two in a byte."""
    if hasattr(parameter, "ds_numel"):
        return int(parameter.ds_numel)
    if type(parameter).__name__ == "Params4bit" and getattr(parameter, "quant_state", None) is not None:
        return int(torch.Size(parameter.quant_state.shape).numel())
    return int(parameter.numel())


def fsdp_promises(job: Job, model: Any) -> Iterator[Mismatch]:
    from torch.distributed.tensor import DTensor

    parameters = list(model.parameters())
    split = [p for p in parameters if isinstance(p, DTensor)]
    yield "weights that are DTensors", len(parameters), len(split)
    if len(split) < len(parameters):
        return
    yield from _mesh(job.distributed, split)
    yield from _units(job, model)
    if job.distributed.tensor_parallel > 1:
        yield from _layers(job, model)
    yield from _shares(job, model, split)
    yield from _offloaded(job, model, split)


def _mesh(placed: Distributed, split: list[Any]) -> Iterator[Mismatch]:
    """Of every weight: ranks along each axis, and what they hold of one another's."""
    planned = {"copies": placed.replicate_degree, "shards": placed.shard_degree, "tensor": placed.tensor_parallel}
    found = {tuple(sorted(mesh_found(p).items())) for p in split}
    real = [dict(f) for f in sorted(found)]
    yield "mesh of each weight", planned, real[0] if len(real) == 1 else real


def mesh_found(parameter: Any) -> dict[str, int]:
    """Axes by what is done along them: copies are the same, shards are of dim 0, and the last axis is the layers' own."""
    mesh, placements = parameter.device_mesh, parameter.placements
    names = mesh.mesh_dim_names or ("dp_shard",)
    sizes = {name: (mesh.size(i), placements[i]) for i, name in enumerate(names)}
    copies, shards, tensor = (sizes.get(name) for name in ("dp_replicate", "dp_shard", "tp"))
    return {
        "copies": copies[0] if copies is not None and copies[1].is_replicate() else 1,
        "shards": shards[0] if shards is not None and not shards[1].is_replicate() else 1,
        "tensor": tensor[0] if tensor is not None else 1,
    }


def _units(job: Job, model: Any) -> Iterator[Mismatch]:
    """How many units the blocks make, and that none but the last is smaller than planned."""
    blocks, config = decoder_blocks(job, model), read_config(job)
    if not blocks:
        return
    sizes = unit_sizes(blocks)
    yield "units of blocks", ceil(len(blocks) / int(config.get("blocks_per_unit", 1))), len(sizes)
    least = int(config.get("min_unit_parameters", 0))
    yield f"units of fewer than {least:,} parameters, but for the last", 0, sum(s < least for s in sizes[:-1])


def _layers(job: Job, model: Any) -> Iterator[Mismatch]:
    """Matrices of the first block: each divided by columns or by rows as transformers' plan has it, then sharded."""
    from transformers.distributed.tensor_parallel import _get_parameter_tp_plan

    placed, names = job.distributed, {id(p): name for name, p in model.named_parameters()}
    for parameter in decoder_blocks(job, model)[0].parameters():
        rows, columns = (*parameter.shape, 1)[:2]
        if parameter.dim() == 1 or rows % (placed.tensor_parallel * placed.shard_degree):
            continue
        name = names[id(parameter)]
        style = _get_parameter_tp_plan(name, model.tp_plan)
        by_rows, by_columns = (1, placed.tensor_parallel) if style == "rowwise" else (placed.tensor_parallel, 1)
        planned = [rows // (by_rows * placed.shard_degree), columns // by_columns]
        yield f"local shape of {name} ({style})", planned, list(parameter.to_local().shape)


def unit_sizes(blocks: list[Any]) -> list[int]:
    """Parameters of each unit, whole, in the order of its first block. Blocks of one unit share FSDP's state."""
    sizes: dict[int, int] = {}
    for block in blocks:
        state = id(block._get_fsdp_state())
        sizes[state] = sizes.get(state, 0) + sum(int(p.numel()) for p in block.parameters())
    return list(sizes.values())


def _shares(job: Job, model: Any, split: list[Any]) -> Iterator[Mismatch]:
    """Each rank holds its share and no more. Tensor parallelism divides the blocks' matrices once more."""
    placed = job.distributed
    matrices = [p for block in decoder_blocks(job, model) for p in block.parameters() if p.dim() > 1]
    if placed.tensor_parallel > 1:
        planned = share(1 / (placed.shard_degree * placed.tensor_parallel))
        yield f"share of the blocks' matrices on rank {rank()}", planned, share(_held(matrices))
        apart = {id(p) for p in matrices}
        split = [p for p in split if id(p) not in apart and not _divided(p)]
    yield f"share of the weights on rank {rank()}", share(1 / placed.shard_degree), share(_held(split))


def _divided(parameter: Any) -> bool:
    """By tensor parallelism: the vocabulary's matrices are, where its size allows."""
    return not parameter.placements[-1].is_replicate()


def _held(split: list[Any]) -> float:
    whole = sum(int(p.numel()) for p in split)
    return sum(int(p.to_local().numel()) for p in split) / max(1, whole)


def _offloaded(job: Job, model: Any, split: list[Any]) -> Iterator[Mismatch]:
    """FSDP2 offloads parameters, gradients and states together: states are made where the parameters are."""
    from torch.distributed.fsdp import CPUOffloadPolicy

    planned = job.distributed.offload != "none"
    groups = [m._get_fsdp_state()._fsdp_param_group for m in decoder_blocks(job, model)]
    real = {isinstance(g.offload_policy, CPUOffloadPolicy) for g in groups if g is not None}
    yield "blocks whose weights and states lie on the host", [planned], sorted(real)
    device = "cpu" if planned else job.distributed.device
    yield "devices of the weights", [device], sorted({p.to_local().device.type for p in split})


def zero_promises(job: Job, trainer: Any) -> Iterator[Mismatch]:
    placed, engine = job.distributed, trainer.model_wrapped
    optimizer, degree = engine.optimizer, placed.data_parallel
    if placed.strategy == "zero3":
        parameters = list(trainer.model.parameters())
        held = sum(int(p.ds_tensor.numel()) for p in parameters if hasattr(p, "ds_tensor"))
        yield "share of the weights on this rank", share(1 / degree), share(held / sum(map(full_size, parameters)))
        planned = "cpu" if placed.offload == "optimizer+parameters" else placed.device
        real = sorted({p.ds_tensor.device.type for p in parameters if hasattr(p, "ds_tensor")})
        yield "devices of the weights' shares", [planned], real
        yield "DeepSpeed offloads weights", placed.offload == "optimizer+parameters", bool(engine.zero_offload_param())
    masters = getattr(optimizer, "fp32_partitioned_groups_flat", None) or getattr(
        optimizer, "single_partition_of_fp32_groups", []
    )
    held = sum(int(g.numel()) for g in masters)
    trained = trained_parameters(job, trainer.model)
    yield "share of the optimizer's masters on this rank", share(1 / degree), share(held / max(1, trained))
    planned = "cpu" if placed.offload != "none" else placed.device
    yield "devices of the optimizer's masters", [planned], sorted({g.device.type for g in masters})
    yield "DeepSpeed offloads the optimizer", placed.offload != "none", bool(engine.zero_cpu_offload())


def trained_parameters(job: Job, model: Any) -> int:
    """As planned; of an unknown architecture, whose number was guessed, as there are."""
    if not unknown(job):
        return job.expect.trainable_parameters
    return sum(full_size(p) for p in model.parameters() if p.requires_grad)


def share(value: float) -> float:
    """Rounded to two digits: shards are padded to whole rows, so shares differ in the third."""
    return round(value, 2)
