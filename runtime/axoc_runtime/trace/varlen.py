"""Packed batches and attention by their boundaries, as CUDA runs it.

Source: torch 2.11, nn/attention/varlen.py and ATen/native/transformers/cuda/flash_attn/flash_api.cpp (mha_varlen_bwd).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
import torch.nn.attention.varlen  # registers its operations

import axoc_runtime.attention.flash_4  # noqa: F401 - and these, theirs
from axoc_runtime.attention.backends import BACKENDS
from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.trace.device import Device
from axoc_runtime.trace.liveness import Liveness
from axoc_runtime.trace.patching import replaced

TILE: Final = 128
"""By which the accumulators of each document are longer than it."""
FP32: Final = 4
FLASH_4_TILES: Final = {64: (128, 128, 32), 96: (64, 128, 32), 128: (64, 128, 32), 192: (64, 96, 64), 256: (64, 48, 64)}
"""Largest head size -> rows and columns of a tile, and what heads are rounded up to (_tile_size_bwd_sm90, causal)."""


def implementation(job: Job) -> str:
    """transformers' name of the job's attention. flash attention 2 and 3 run the same kernels as torch's own; no package need be
    here. Raises RuntimeFailure."""
    name = job.model.attention
    backend = BACKENDS.get(name)
    if backend is None or name == "flex":
        fix = "verify with model.attention: varlen, which needs no mask either"
        raise RuntimeFailure(f"attention {name} cannot be traced", EXIT_INPUTS, fix)
    if backend.documents != "kernel":
        return backend.implementation
    from axoc_runtime.attention.register import register_varlen

    register_varlen()
    return BACKENDS[name if name == "flash_attention_4" else "varlen"].implementation


@contextmanager
def capable(device: Device) -> Iterator[None]:
    """varlen.py asks where its tensors are, and takes documents one by one where that is no GPU."""
    from axoc_runtime.attention import varlen

    with replaced(varlen, "_capability", lambda _: (device.major, 0)):
        yield


def backward(mode: Liveness, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """fp32 accumulators of dq and row sums, a tile longer for each document, and dk, dv of each query head where heads
    share."""
    result = mode.run(func, args, kwargs)
    for tensor in result:
        mode.see(tensor)
    query, key, documents = args[1], args[2], args[6].shape[0] - 1
    tokens, heads, head = query.shape
    sums = heads * (tokens + TILE * documents) * (head + 1) * FP32
    shared = 2 * tokens * heads * head * key.element_size() if heads != key.shape[1] else 0
    mode.scratch(sums + shared)
    return result


def flash_4_backward(mode: Liveness, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """fp32 accumulators of dq, row sums and log-sum-exps, padded by documents to the kernel's tiles; where heads share, dk
    and dv of each key head in fp32. Source: flash-attn-4 4.0.0b36, flash_attn/cute/interface.py (_flash_attn_bwd, of Hopper)."""
    result = mode.run(func, args, kwargs)
    for tensor in result:
        mode.see(tensor)
    query, key, ends = args[1], args[2], args[6].shape[0]
    tokens, heads, head = query.shape
    rows, columns, multiple = next(t for limit, t in FLASH_4_TILES.items() if head <= limit)
    wide = -(-head // multiple) * multiple
    padded_rows, padded_columns = ((tokens + ends * tile - 1) // tile * tile for tile in (rows, columns))
    sums = heads * padded_rows * (wide + 2) * FP32
    shared = 2 * key.shape[1] * padded_columns * wide * FP32 if heads != key.shape[1] else 0
    mode.scratch(sums + shared)
    return result


def pack(rows: int, length: int, vocabulary: int) -> dict[str, Any]:
    """objectives/packed.py: one row, here of documents that are as long as they may be."""
    tokens = torch.randint(0, vocabulary, (1, rows * length))
    ends = torch.arange(0, rows * length + 1, length, dtype=torch.int32)
    return {
        "input_ids": tokens,
        "labels": tokens.clone(),
        "position_ids": torch.arange(rows * length).remainder(length).unsqueeze(0),
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends.clone(),
        "max_length_q": length,
        "max_length_k": length,
    }
