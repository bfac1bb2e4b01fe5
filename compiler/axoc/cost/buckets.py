"""Communication bucket sizes: decided here once, so that what is emitted is what was costed."""

from __future__ import annotations

from typing import Final

GATHER_ELEMENTS: Final = 50_000_000
"""ZeRO-3's prefetch bucket and ZeRO-1/2's all-gather bucket: DeepSpeed's stage3_prefetch_bucket_size default."""
LIVE_ELEMENTS: Final = 1_000_000_000
"""DeepSpeed's default for stage3_max_live_parameters, stage3_max_reuse_distance and sub_group_size."""
MIN_REDUCE_ELEMENTS: Final = 1_000_000


def reduce_bucket_elements(hidden_size: int) -> int:
    """One square matrix of the model: what transformers fills in for ``auto`` (integrations/deepspeed.py)."""
    return max(MIN_REDUCE_ELEMENTS, hidden_size * hidden_size)


def persistence_threshold_elements(hidden_size: int) -> int:
    """Parameters this small stay gathered on every rank under ZeRO-3: transformers' ``auto`` is 10 x hidden."""
    return 10 * hidden_size
