"""FSDP2's gradients being reduced: the closed form's worst block is the worst of all, block by block."""

import numpy as np
from axoc.cost.reducing import Units
from hypothesis import given, settings
from hypothesis import strategies as st

GRADIENTS, SHARE = 8.0, 2.0


def walked(layers: int, size: int, at_top: float, kept: float, bottom: bool) -> float:
    """Of every unit from the top, and every block in it; ``bottom``: without the last unit."""
    top = (layers - 1) % size + 1
    sizes = [top] + [size] * ((layers - top) // size)
    found, gone = [], 0
    for number, own in enumerate(sizes[:-1] if bottom and len(sizes) > 1 else sizes):
        being_reduced = at_top if number == 0 else sizes[number - 1] * GRADIENTS
        for block in range(own):
            found.append(being_reduced + gone * SHARE + block * GRADIENTS - (gone + block) * kept)
        gone += own
    return max(0.0, *found)


@settings(max_examples=200)
@given(
    layers=st.integers(1, 40),
    size=st.integers(1, 12),
    at_top=st.sampled_from((0.0, 5.0, 90.0)),
    kept=st.sampled_from((0.5, 3.0, 9.0, 12.0)),
    bottom=st.booleans(),
)
def test_no_block_is_worse(layers: int, size: int, at_top: float, kept: float, bottom: bool) -> None:
    size = min(size, layers)
    units = Units(layers=layers, blocks=np.array([size]), gradients=np.array([GRADIENTS]), share=np.array([SHARE]))
    made = units.worst(np.array([at_top]), np.array([kept]), np.array([layers]), np.array([bottom]))
    assert made[0] == walked(layers, size, at_top, kept, bottom)


def test_the_trace_of_1b_in_units_of_four() -> None:
    """128 MiB a block's input, 116 its gradients, two ranks: the second unit's first block, 184 MiB (docs/several-gpus.md)."""
    units = Units(layers=16, blocks=np.array([4]), gradients=np.array([116.0]), share=np.array([58.0]))
    made = units.worst(np.zeros(1), np.array([128.0]), np.array([16]), np.array([True]))
    assert made[0] == 4 * 116 + 4 * (58 - 128)
