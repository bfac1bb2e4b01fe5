"""By how much more than an even share FSDP2 keeps of experts, and gathers and reduces.

It splits the first dim of each weight into chunks as large as the first one, padded where they are not. Of all others that dim
is thousands, of experts it is their number: eight of them over 16 ranks lie on eight, the others hold as much in zeros.
Source: torch 2.11, distributed/fsdp/_fully_shard/_fsdp_param.py, _init_sharded_param.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from axoc.cost.columns import Columns, Floats
from axoc.cost.scenario import Scenario


def of_blocks(scenario: Scenario, c: Columns) -> Floats:
    """Times the blocks' weights."""
    return _times(scenario, c, scenario.sizes.blocks)


def of_model(scenario: Scenario, c: Columns) -> Floats:
    """Times all weights."""
    return _times(scenario, c, scenario.sizes.total)


def _times(scenario: Scenario, c: Columns, whole: int) -> Floats:
    moe = scenario.model.moe
    if moe is None:
        return np.ones(len(c))
    padded = np.ceil(moe.num_experts / c.shard_degree) * c.shard_degree / moe.num_experts
    share = scenario.sizes.experts / max(1, whole)
    return cast(Floats, np.where(c.uses("fsdp"), 1.0 + share * (padded - 1.0), 1.0))
