"""The terms that a step's phases are put together from, and the items that every phase names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from axoc.cost.activations import Activations
from axoc.cost.collectives import Collectives
from axoc.cost.columns import Columns, Floats
from axoc.cost.scenario import Scenario

Ledger = dict[str, Floats]
"""Bytes by item, one row a candidate. Every phase names the same items, so that ledgers can be compared."""

ITEMS: Final = (
    "gathered weights",
    "gradients",
    "reduction buffers",
    "activations",
    "autocast weight copies",
    "logits and loss",
    "working set",
)
"""What comes and goes, beside what stays."""


@dataclass(frozen=True, kw_only=True)
class Live:
    """The terms that phases are put together from."""

    scenario: Scenario
    columns: Columns
    tokens: Floats
    persistent: Ledger
    held: Activations
    shared: Collectives
    gradients: Floats
    """That a rank keeps once a backward is complete: of everything that is trained, or of its share."""
    carried: Floats
    """Gradients that live through the next forward: with accumulation, and under ZeRO-3 always."""
    waiting: Floats
    """Of the vocabulary matrix, from the loss on: the first gradient to exist. A tied one waits for the lookup's."""

    def phase(self, **live: Floats) -> Ledger:
        """The persistent items and ``live``; what is not named is not there."""
        zero = np.zeros(len(self.columns))
        return self.persistent | {item: live.get(item.replace(" ", "_"), zero) for item in ITEMS}
