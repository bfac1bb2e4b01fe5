"""SigLIP's tower."""

from __future__ import annotations

from typing import Final

from axoc.facts.families.reader import ConfigReader
from axoc.facts.vision.tower import Tower

GELU: Final = "gelu_pytorch_tanh"


def siglip_elements(tower: Tower, vision: ConfigReader) -> int:
    """SiglipVisionModel: patches with bias, learned positions, a norm after the layers, and the head that pools them unless
    the config leaves it out."""
    hidden = tower.hidden_size
    embeddings = tower.patch_elements * hidden + hidden + tower.patches * hidden
    pooling = _pooling(tower) if vision.flag("vision_use_head", True) else 0
    return embeddings + tower.layers_elements + 2 * hidden + pooling


def _pooling(tower: Tower) -> int:
    """One token that is learned, attention, a norm and an MLP: a layer less a norm."""
    layer = tower.layers_elements // tower.num_layers
    return tower.hidden_size + layer - 2 * tower.hidden_size
