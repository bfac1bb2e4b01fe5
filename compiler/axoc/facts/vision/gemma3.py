"""Gemma 3: SigLIP's tower, whose patches are averaged to a fixed number of tokens, and one matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from axoc.facts.families.gemma3 import DEFAULTS
from axoc.facts.families.reader import ConfigReader
from axoc.facts.vision.siglip import GELU, siglip_elements
from axoc.facts.vision.tower import Seeing, read_tower
from axoc.ir.facts import VisionFacts


class Gemma3(Seeing):
    model_types = ("gemma3",)
    text_defaults: ClassVar[Mapping[str, Any]] = {"model_type": "gemma3_text", "vocab_size": DEFAULTS["vocab_size"]}

    def read(self, reader: ConfigReader, vision: ConfigReader, hidden_size: int) -> VisionFacts:
        tower = read_tower(vision, GELU)
        projector = tower.hidden_size * hidden_size + tower.hidden_size
        return VisionFacts(
            parameters=siglip_elements(tower, vision) + projector,
            tokens_per_tile=reader.count("mm_tokens_per_image", 256),
            patches_per_tile=tower.patches,
            keeps_layers=False,
            blocks=self.blocks,
            **tower.facts,
        )

    def text(self, config: Mapping[str, Any]) -> dict[str, Any]:
        tied = config.get("tie_word_embeddings", True)
        return {"tie_word_embeddings": tied, **super().text(config)}
