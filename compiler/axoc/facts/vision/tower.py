"""What the towers of models that see have in common, and how their parameters are counted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from axoc.facts.families.reader import ConfigReader
from axoc.ir.facts import VisionFacts

QUICK_GELU: Final = "quick_gelu"
"""x sigmoid(1.702 x), in three steps (transformers/activations.py); other activations are one kernel."""


@dataclass(frozen=True, kw_only=True)
class Tower:
    """A vision transformer's shape, from its config with transformers' defaults."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    image_size: int
    patch_size: int
    channels: int
    activation: str

    @property
    def patches(self) -> int:
        """Of one square image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def patch_elements(self) -> int:
        return self.channels * self.patch_size**2

    @property
    def layers_elements(self) -> int:
        """Four projections with bias, two layer norms, and an MLP with bias, of each layer."""
        hidden, width = self.hidden_size, self.intermediate_size
        layer = 4 * (hidden * hidden + hidden) + 2 * 2 * hidden + 2 * hidden * width + hidden + width
        return self.num_layers * layer

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_layers": self.num_layers,
            "patch_elements": self.patch_elements,
            "inner_copies": 3 if self.activation == QUICK_GELU else 2,
        }


def read_tower(reader: ConfigReader, activation: str, **defaults: int) -> Tower:
    """``activation`` and ``defaults``, by the names that CLIP's and SigLIP's configs have: where the config says nothing."""

    def read(name: str) -> int:
        return reader.count(name, defaults.get(name))

    return Tower(
        hidden_size=read("hidden_size"),
        intermediate_size=read("intermediate_size"),
        num_layers=read("num_hidden_layers"),
        image_size=read("image_size"),
        patch_size=read("patch_size"),
        channels=reader.count("num_channels", 3),
        activation=reader.text("hidden_act", activation),
    )


class Seeing(ABC):
    """One kind of model that sees, of one or several model_types."""

    model_types: ClassVar[tuple[str, ...]]
    blocks: ClassVar[str] = "model.language_model.layers"
    """Path of the language model's blocks in transformers' class."""
    text_defaults: ClassVar[Mapping[str, Any]] = {}
    """Of the language model's config, where published ones leave it out."""

    @abstractmethod
    def read(self, reader: ConfigReader, vision: ConfigReader, hidden_size: int) -> VisionFacts:
        """``vision``: the reader of vision_config; ``hidden_size``: the language model's."""

    def text(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The language model's config, as its family reads it."""
        inner = config.get("text_config")
        return dict(self.text_defaults) | (dict(inner) if isinstance(inner, Mapping) else {})
