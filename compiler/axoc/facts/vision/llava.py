"""LLaVA 1.5: CLIP's tower, or SigLIP's, and two linear layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from axoc.facts.families.reader import ConfigReader
from axoc.facts.vision.siglip import GELU, siglip_elements
from axoc.facts.vision.tower import QUICK_GELU, Seeing, Tower, read_tower
from axoc.ir.facts import VisionFacts

CLIP: Final = "clip_vision_model"
CLIP_DEFAULTS: Final = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "image_size": 336,
    "patch_size": 14,
}
"""LlavaConfig's own, where it is given none (transformers/models/llava/configuration_llava.py)."""
LLAMA: Final = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
}
"""LlamaConfig's defaults, which the published config leaves out."""


class Llava(Seeing):
    model_types = ("llava",)
    text_defaults: ClassVar[Mapping[str, Any]] = LLAMA

    def read(self, reader: ConfigReader, vision: ConfigReader, hidden_size: int) -> VisionFacts:
        clip = vision.text("model_type", CLIP) == CLIP
        tower = read_tower(vision, QUICK_GELU if clip else GELU, **CLIP_DEFAULTS)
        layers = reader.config.get("vision_feature_layer", -2)
        levels = len(layers) if isinstance(layers, list) else 1
        bias = hidden_size if reader.flag("multimodal_projector_bias", True) else 0
        projector = tower.hidden_size * levels * hidden_size + hidden_size * hidden_size + 2 * bias
        whole = reader.text("vision_feature_select_strategy", "default") == "full"
        return VisionFacts(
            parameters=(clip_elements(tower) if clip else siglip_elements(tower, vision)) + projector,
            tokens_per_tile=tower.patches + (1 if clip and whole else 0),
            patches_per_tile=tower.patches + (1 if clip else 0),
            keeps_layers=True,
            blocks=self.blocks,
            **tower.facts,
        )


def clip_elements(tower: Tower) -> int:
    """CLIPVisionModel: a class token, patches without bias, learned positions, and a norm before and after the layers."""
    hidden = tower.hidden_size
    embeddings = hidden + tower.patch_elements * hidden + (tower.patches + 1) * hidden
    return embeddings + tower.layers_elements + 2 * 2 * hidden
