"""ModelFamily: what every family offers, and the shape most of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from axoc.facts.families.linears import LinearShape, separate_attention, separate_mlp
from axoc.facts.families.reader import ConfigReader
from axoc.ir.facts import ModelFacts


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The fields that every decoder has, read and checked."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class ModelFamily(ABC):
    """One architecture. Subclasses are stateless and registered under the entry point group ``axoc.model_families``."""

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    """transformers' model_type values that this family reads."""
    decoder_block: ClassVar[str]
    blocks: ClassVar[str] = "model.layers"
    """Path of the list of blocks in transformers' causal LM class."""
    embedding: ClassVar[str] = "embed_tokens"
    """Names of the vocabulary's matrices there."""
    head: ClassVar[str] = "lm_head"
    expert_projections: ClassVar[tuple[str, str, str] | None] = None
    """Names of an expert's gate, up and down projections before transformers 5 fused them; None without experts."""

    @abstractmethod
    def read(self, reader: ConfigReader) -> dict[str, Any]:
        """The family's fields of ModelFacts, from a config.json. Problems go to ``reader``."""

    def linears(self, model: ModelFacts) -> tuple[LinearShape, ...]:
        """Every linear layer inside the decoder blocks."""
        return separate_attention(model) + separate_mlp(model)

    def attention_norms(self, model: ModelFacts) -> int:
        """Elements of the norms inside one block's attention."""
        if model.qk_norm == "head":
            return 2 * model.head_dim
        if model.qk_norm == "full":
            return (model.num_heads + model.num_kv_heads) * model.head_dim
        return 0

    def parse(self, config: Mapping[str, Any], *, model_id: str, file: str | None) -> ModelFacts:
        """Raises UserError with every missing or ill-typed field."""
        reader = ConfigReader(config, file)
        values = self.read(reader)
        reader.finish()
        model_type = config.get("model_type")
        identity = {"id": model_id, "family": self.name, "model_type": model_type or self.default_model_type()}
        return ModelFacts(**{"decoder_block": self.decoder_block, **COMMON, **identity, **values})

    def default_model_type(self) -> str:
        return self.model_types[0] if self.model_types else self.name

    def warnings(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """What the user should know about a plan made from this config."""
        return ()


COMMON: dict[str, Any] = {
    "gated_mlp": True,
    "norm": "rmsnorm",
    "norms_per_layer": 2,
    "final_norm": True,
    "qk_norm": "none",
    "attention_bias": False,
    "attention_output_bias": False,
    "mlp_bias": False,
    "learned_positions": False,
    "lm_head_bias": False,
}
"""Of a Llama-like decoder; families override what differs."""


def read_shape(
    reader: ConfigReader,
    *,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    max_positions: int,
    names: Mapping[str, str] | None = None,
    defaults: Mapping[str, int] | None = None,
) -> Shape:
    """The common fields.

    ``kv_heads`` and ``head_dim`` are transformers' defaults where config.json omits them: None means as many as
    heads, and hidden_size / heads. ``names`` and ``defaults`` go by the field names of Shape.
    """
    given = {field.name: field.name for field in fields(Shape)} | _HUGGING_FACE_NAMES | dict(names or {})
    default = dict(defaults or {})

    def read(field: str) -> int:
        return reader.count(given[field], default.get(field))

    hidden, heads = read("hidden_size"), read("num_heads")
    shape = Shape(
        hidden_size=hidden,
        intermediate_size=read("intermediate_size"),
        num_layers=read("num_layers"),
        num_heads=heads,
        num_kv_heads=reader.count(given["num_kv_heads"], kv_heads or heads),
        head_dim=reader.count("head_dim", head_dim or max(1, hidden // heads)),
        vocab_size=read("vocab_size"),
        max_position_embeddings=reader.count(given["max_position_embeddings"], max_positions),
    )
    _check_heads(reader, shape, head_dim_known=reader.has("head_dim") or head_dim is not None)
    return shape


_HUGGING_FACE_NAMES = {
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
}


def _check_heads(reader: ConfigReader, shape: Shape, *, head_dim_known: bool) -> None:
    if reader.problems:
        return
    if not head_dim_known and shape.hidden_size % shape.num_heads:
        reader.reject(
            f"{reader.prefix}hidden_size {shape.hidden_size} is not a multiple of {shape.num_heads} attention heads",
            fix="give head_dim, or correct one of the two",
        )
    if shape.num_heads % shape.num_kv_heads:
        reader.reject(
            f"{reader.prefix}{shape.num_heads} attention heads cannot share {shape.num_kv_heads} key-value heads",
            expected="a number of key-value heads that divides the number of heads",
        )


def sliding_layers(reader: ConfigReader, window: int | None, num_layers: int, default: int) -> int:
    """Layers with a sliding window: those of ``layer_types`` where it is given, else ``default``."""
    if window is None:
        return 0
    kinds = reader.items("layer_types")
    if kinds is None:
        return default
    return min(num_layers, sum(1 for kind in kinds if kind == "sliding_attention"))
