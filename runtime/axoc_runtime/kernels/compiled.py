"""Blocks compiled one by one: a graph that all blocks of a kind share, in minutes less than a graph of the whole model."""

from __future__ import annotations

from typing import Any, Final

import torch

from axoc_runtime.job import Job
from axoc_runtime.models.load import decoder_blocks

BOUNDARIES: Final = ("cu_seq_lens_q", "cu_seq_lens_k")


def compile_blocks(job: Job, model: Any) -> None:
    """Each block's forward, in place: names of weights stay, and what is done around a block (recomputation, FSDP's
    gathering) stays outside of the graph. Nothing is compiled before the first forward pass.

    Packed batches are all of one shape, but for how many documents they hold; of others the length differs, and after a
    second one it becomes a symbol.
    """
    packed = all(d.packing for d in job.datasets)
    for block in decoder_blocks(job, model):
        block.forward = torch.compile(block.forward, dynamic=False if packed else None)
    model.register_forward_pre_hook(_any_number_of_documents, with_kwargs=True)


def _any_number_of_documents(_: Any, args: Any, given: dict[str, Any]) -> None:
    for name in BOUNDARIES:
        if isinstance(given.get(name), torch.Tensor):
            torch._dynamo.maybe_mark_dynamic(given[name], 0)
