"""Tensor parallelism by transformers' own plan of which layers are split by columns and which by rows.

What the plan leaves whole becomes a DTensor too, a copy on each rank: all weights are then on the same mesh, which fused
optimizers and the clipping of gradients need. Source: transformers 5.17, distributed/tensor_parallel.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch.distributed.tensor import DTensor, Partial, Replicate, distribute_tensor
from transformers.distributed.tensor_parallel import TensorParallelLayer, apply_tensor_parallelism

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure

OWN_HEADS: Final = "replicated_with_grad_allreduce"
"""A norm of each head (Qwen 3): whole on each rank, which sees its own heads alone, so that gradients are to be added."""
STYLES: Final = ("colwise", "rowwise", "colwise_gather_output", "embedding_rowwise", OWN_HEADS)
"""Those that train here. Others run kernels on local tensors, whose gradients FSDP does not reduce."""


class Replicated(TensorParallelLayer):
    """A module whose weights are whole on each rank, and which computes with plain tensors."""

    def __init__(self, *, adds_gradients: bool) -> None:
        self.gradients = [Partial()] if adds_gradients else None

    def shard_param(self, module: Any, param: str, mesh: Any) -> None:
        whole = module._parameters[param]
        split = distribute_tensor(whole.detach(), mesh, [Replicate()], src_data_rank=None)
        module._parameters[param] = torch.nn.Parameter(split, requires_grad=whole.requires_grad)

    @contextmanager
    def context_around_forward(self, module: Any, mesh: Any) -> Iterator[None]:
        mine = {n: p for n, p in module._parameters.items() if isinstance(p, DTensor)}
        module._parameters.update({n: p.to_local(grad_placements=self.gradients) for n, p in mine.items()})
        try:
            yield
        finally:
            module._parameters.update(mine)


def split_layers(model: Any, mesh: Any) -> None:
    """In place, on each rank its part. Raises RuntimeFailure where transformers has no plan that trains here."""
    plan = checked_plan(model, mesh.size())
    heads = {name for name, style in plan.items() if style == OWN_HEADS}
    model._tp_plan = {name: style for name, style in plan.items() if name not in heads}
    apply_tensor_parallelism(model, mesh)
    for name, module in model.named_modules():
        whole = [n for n, p in module._parameters.items() if p is not None and not isinstance(p, DTensor)]
        if whole:
            layer = Replicated(adds_gradients=_pattern(name) in heads)
            for parameter in whole:
                layer.shard_param(module, parameter, mesh)
            layer.install_forward(module, mesh)
    model.tie_weights()  # splitting made two weights of a tied one, which are split alike


def checked_plan(model: Any, ranks: int) -> dict[str, str]:
    """transformers' plan, with the vocabulary's matrices: a tied one is split by rows of the vocabulary in both places,
    and one that does not divide stays whole."""
    plan = dict(model.tp_plan or {})
    others = sorted(set(plan.values()) - set(STYLES))
    if not plan or others:
        what = f"with {', '.join(others)}, which does not train here" if others else "none"
        message = f"tensor parallelism needs transformers' plan for {type(model).__name__}: it has one {what}"
        raise RuntimeFailure(message.replace("one none", "none"), EXIT_INPUTS, "set distributed.model_parallel_size: 1")
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {module: name for name, module in model.named_modules()}
    if table.weight.shape[0] % ranks:
        plan = {name: style for name, style in plan.items() if name not in (names[table], names[head])}
    elif table.weight is head.weight:
        plan |= {names[table]: "embedding_rowwise", names[head]: "colwise_gather_output"}
    return plan


def _pattern(name: str) -> str:
    """As plans write it: numbers of layers are stars."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))
