"""FSDP2's gradients that are being reduced, at the worst block of a backward.

A unit is reduced when its last block has its gradients (foreach_reduce): they are copied into one input, which stays until
the next unit's, and leave a rank's share of them. Those of a unit's other blocks wait for it. What a block kept for its
backward is gone by then. So, with ``g`` bytes of a block's gradients, ``s`` of a rank's share and ``a`` of what it kept, at
the ``j``-th block of a unit, ``b`` blocks and the unit before of ``u`` of them being reduced: ``u g + b (s - a) + j (g - a)``.
Within a unit that is linear in ``j``, from the second on linear in ``b``: the worst is at an end of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from axoc.cost.columns import Bools, Floats, Ints


@dataclass(frozen=True, kw_only=True)
class Units:
    """One row a candidate; no gradients but under FSDP2. Units are filled from the bottom: what is over is the top one's."""

    layers: int
    blocks: Ints
    """Of a unit."""
    gradients: Floats
    """Bytes of one block's, whole."""
    share: Floats
    """What is new of a rank's share of them: nothing where a micro-batch before has left it."""

    def worst(self, at_top: Floats, of_one: Floats, blocks: Ints, bottom: Bools) -> Floats:
        """Over ``blocks`` of which each kept ``of_one`` bytes. ``at_top``: what is being reduced when the first begins.
        ``bottom``: the model's bottom unit is among them; beside it nothing is prefetched, and it has a phase of its own."""
        of_block = np.maximum(0.0, self.gradients - of_one)
        top = np.minimum((self.layers - 1) % self.blocks + 1, blocks)
        units = np.ceil(np.maximum(blocks - top, 0) / self.blocks)
        found: Floats = at_top + (top - 1) * of_block * (blocks > 0)
        for unit in (np.ones_like(units), np.full_like(units, 2.0), units - bottom):
            reduced = top + (unit - 1) * self.blocks
            before = np.where(unit == 1, top, self.blocks)
            others = np.minimum(self.blocks, blocks - reduced) - 1
            here = before * self.gradients + reduced * (self.share - of_one) + others * of_block
            found = np.maximum(found, np.where((unit >= 1) & (unit <= units - bottom), here, 0.0))
        return found
