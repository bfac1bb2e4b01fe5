"""One FSDP candidate on a mesh of ranks, as the cost model's columns."""

from __future__ import annotations

import numpy as np
from axoc.cost.columns import OFFLOADS, STRATEGIES, Columns


def row(data: int, copies: int = 1, tensor: int = 1, offload: str = "none", accumulation: int = 1) -> Columns:
    values = {
        "strategy": STRATEGIES.index("fsdp"),
        "data_parallel": data,
        "tensor_parallel": tensor,
        "replicate_degree": copies,
        "micro_batch": 1,
        "accumulation": accumulation,
        "checkpointed_layers": 32,
        "offload": OFFLOADS.index(offload),  # type: ignore[arg-type]
    }
    return Columns(**{name: np.array([value]) for name, value in values.items()})
