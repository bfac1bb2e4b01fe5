"""Sums over rows on CUDA: partial sums of several blocks of threads pass through a buffer in device memory.

Source: ATen/native/cuda/Reduce.cuh, setReduceConfig and ReduceConfig::global_memory_size. The gradients of norms' weights
and of biases are such sums, and their buffers are larger than the sums. Checked on an H100: 32 MiB for 2048 x 2048.
"""

from __future__ import annotations

from math import prod
from typing import Any, Final

import torch

from axoc_runtime.trace.device import Device
from axoc_runtime.trace.liveness import Liveness, Rule

MAX_THREADS: Final = 512
WARP: Final = 32
THREADS_PER_MULTIPROCESSOR: Final = 2048
MIN_VALUES: Final = 16
MAX_VALUES: Final = 256
ACCUMULATOR_BYTES: Final = 4
"""Sums are kept in fp32 whatever the input's dtype."""


def buffer_bytes(outputs: int, inputs: int, device: Device) -> int:
    """Of a sum of ``inputs`` rows into ``outputs`` columns, contiguous; 0 where one block of threads a sum is enough."""
    vector = next(v for v in (4, 2, 1) if outputs % v == 0)
    most = MAX_THREADS // vector
    columns, rows = min(last_power(outputs // vector), most), min(last_power(inputs), most)
    width = min(columns, WARP)
    height = min(rows, most // width)
    width = min(columns, most // height)
    if inputs < height * 16 and inputs < MAX_VALUES:
        return 0
    values = -(-inputs // height)
    grid = -(-(outputs // vector) // width)
    target = device.multiprocessors * (THREADS_PER_MULTIPROCESSOR // (width * height))
    if (values < height * 16 and values < MAX_VALUES) or grid > target:
        return 0
    split = max(min(-(-target // grid), -(-values // MIN_VALUES)), -(-values // MAX_VALUES))
    return ACCUMULATOR_BYTES * outputs * split * width * vector if split > 1 else 0


def last_power(number: int) -> int:
    """The largest power of two that is not above it."""
    return 1 << (max(1, number).bit_length() - 1)


def sum_rule(device: Device) -> Rule:
    """Adds the buffer to sums over all dimensions but the last ones."""

    def run(mode: Liveness, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = mode.run(func, args, kwargs)
        value, dims = args[0], sorted(d % max(1, args[0].dim()) for d in (args[1] or []))
        if dims == list(range(len(dims))) and 0 < len(dims) < value.dim() and value.is_contiguous():
            mode.see(result)
            inputs, outputs = prod(value.shape[: len(dims)]), prod(value.shape[len(dims) :])
            mode.scratch(buffer_bytes(outputs, inputs, device))
        return result

    return run


def reductions(device: Device) -> dict[Any, Rule]:
    return {torch.ops.aten.sum.dim_IntList: sum_rule(device)}
