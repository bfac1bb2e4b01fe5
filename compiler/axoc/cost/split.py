"""What tensor-parallel ranks have a part of, and what each of them has whole.

Source: runtime/axoc_runtime/strategies/tensor.py: the linear layers of the blocks and the head are split, with the head an
embedding that is tied to it; an untied embedding and norms are whole, and so is a vocabulary that does not divide.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from axoc.cost.columns import Columns, Floats
from axoc.cost.scenario import Scenario


def matrix(scenario: Scenario, c: Columns) -> Floats:
    """Elements of the head on one rank, which are the embedding's where the two are one."""
    whole = scenario.sizes.vocabulary_matrix
    divides = (whole // scenario.model.hidden_size) % c.tensor_parallel == 0
    return cast(Floats, np.where(divides, whole / c.tensor_parallel, whole))


def head(scenario: Scenario, c: Columns) -> Floats:
    """Elements of an untied head on one rank."""
    return matrix(scenario, c) * (1.0 if scenario.sizes.lm_head else 0.0)


def embedding(scenario: Scenario, c: Columns) -> Floats:
    """Elements of the embedding on one rank."""
    sizes = scenario.sizes
    if sizes.lm_head:
        return np.full(len(c), float(sizes.embedding))
    return sizes.embedding - sizes.vocabulary_matrix + matrix(scenario, c)


def block_share(scenario: Scenario, c: Columns) -> Floats:
    """Of a block's weights that are on one rank."""
    linear = scenario.sizes.blocks_linear / max(1, scenario.sizes.blocks)
    return cast(Floats, linear / c.tensor_parallel + (1 - linear))


def outside(scenario: Scenario, c: Columns) -> Floats:
    """Elements on one rank that are no block's."""
    sizes = scenario.sizes
    norms = sizes.language - sizes.blocks - sizes.embedding - sizes.lm_head
    return norms + embedding(scenario, c) + head(scenario, c)


def share(scenario: Scenario, c: Columns) -> Floats:
    """Of all weights that are on one rank."""
    whole = scenario.sizes.blocks * block_share(scenario, c) + outside(scenario, c)
    return cast(Floats, whole / max(1, scenario.sizes.language))


def blocks(scenario: Scenario, c: Columns) -> Floats:
    """Of the weights on one rank, the share that is the blocks'."""
    sizes = scenario.sizes
    return cast(Floats, sizes.blocks * block_share(scenario, c) / (max(1, sizes.language) * share(scenario, c)))
