"""The part of a model that sees: its forward pass, which is all it has, as it is frozen.

How many images a row has is not known: memory and time are those of batches in which every token is an image's, as many as
the rows' lengths allow. The tower is a pre-norm transformer over patches (arXiv 2010.11929, section 3.1): 4 h^2 + 2 h i
weights a layer, and attention over the patches of a tile alone.
"""

from __future__ import annotations

from typing import Final, cast

import numpy as np

from axoc.cost import flops, lengths
from axoc.cost.columns import Columns, Floats
from axoc.cost.kernels import dense_rate
from axoc.cost.scenario import Scenario
from axoc.ir.facts import VisionFacts

PHASE: Final = "images"
ITEM: Final = "images"
SECONDS: Final = "images"
PIXEL_BYTES: Final = 4.0
"""Processors make pixels in float32."""
LEFT_OUT: Final = ("activations", "autocast weight copies", "logits and loss")
"""What a forward keeps, and what is not there yet while images are seen."""
OUTSIDE: Final = ("load", "optimizer")
"""Phases in which there is no batch."""


def with_images(scenario: Scenario, c: Columns, phases: dict[str, dict[str, Floats]]) -> dict[str, dict[str, Floats]]:
    """The ledger by phase with what images take, and the phase in which they are seen."""
    if scenario.model.vision is None:
        return phases
    held, zero = held_bytes(scenario, c), np.zeros(len(c))
    made = {p: ledger | {ITEM: zero if p in OUTSIDE else held} for p, ledger in phases.items()}
    seeing = made["forward"] | dict.fromkeys(LEFT_OUT, zero) | {"working set": _working(scenario, c)}
    return {"load": made.pop("load"), PHASE: seeing, **made}


def held_bytes(scenario: Scenario, c: Columns) -> Floats:
    """For as long as the decoder runs: the batch's pixels, and what the decoder reads of them."""
    vision = _vision(scenario)
    tiles = _tiles(vision, flops.tokens(scenario, c))
    pixels = tiles * vision.patches_per_tile * vision.patch_elements * PIXEL_BYTES
    read = tiles * vision.tokens_per_tile * scenario.model.hidden_size * float(scenario.compute_bytes)
    return cast(Floats, pixels + read)


def _working(scenario: Scenario, c: Columns) -> Floats:
    """Inside the last layer, nothing of which is kept for a backward: beside what came before it the norm, query, key, value
    and the attention's output; or the stream after attention, its norm and the MLP's inner values. Autocast leaves the
    stream and its norms in the weights' dtype."""
    vision = _vision(scenario)
    hidden, stream, compute = vision.hidden_size, scenario.weight_bytes, scenario.compute_bytes
    before = (
        (vision.num_layers if vision.keeps_layers else 2) * hidden * stream
    )  # else the embeddings and the layer's input
    attention = hidden * (stream + 4 * compute)
    mlp = 2 * hidden * stream + vision.inner_copies * vision.intermediate_size * compute
    patches = _tiles(vision, flops.tokens(scenario, c)) * vision.patches_per_tile
    return cast(Floats, patches * float(before + max(attention, mlp)))


def seconds(scenario: Scenario, c: Columns) -> Floats:
    """Of a micro-batch: products at the device's rate."""
    vision = _vision(scenario)
    hidden, width = vision.hidden_size, vision.intermediate_size
    patches = _tiles(vision, scenario.by_variant(c, lengths.real_tokens)) * vision.patches_per_tile
    linear = 2.0 * (4 * hidden * hidden + 2 * hidden * width)
    attention = 4.0 * vision.patches_per_tile * hidden
    return cast(Floats, patches * vision.num_layers * (linear + attention) / dense_rate(scenario))


def _tiles(vision: VisionFacts, tokens: Floats) -> Floats:
    """That so many tokens can be of."""
    return cast(Floats, np.ceil(tokens / vision.tokens_per_tile))


def _vision(scenario: Scenario) -> VisionFacts:
    assert scenario.model.vision is not None
    return scenario.model.vision
