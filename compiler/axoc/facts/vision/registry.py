"""From the config.json of a model that sees to its facts: the decoder's family reads the decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from axoc.errors import Diagnostic, UserError
from axoc.facts.families.reader import ConfigReader
from axoc.facts.families.registry import MODEL_TYPES, family_for
from axoc.facts.vision.gemma3 import Gemma3
from axoc.facts.vision.llava import Llava
from axoc.facts.vision.tower import Seeing
from axoc.ir.facts import ModelFacts

KINDS: Final[tuple[Seeing, ...]] = (Llava(), Gemma3())
SEES: Final[Mapping[str, Seeing]] = {name: kind for kind in KINDS for name in kind.model_types}
"""By transformers' model_type."""


def read_seeing(config: Mapping[str, Any], model_id: str, file: str | None) -> ModelFacts:
    """Raises UserError where it is of no kind that is known, and for every missing or ill-typed field."""
    model_type = config.get("model_type")
    kind = SEES.get(model_type) if isinstance(model_type, str) else None
    if kind is None:
        raise UserError(_blind(model_type, file))
    text = kind.text(config)
    if text.get("model_type") not in MODEL_TYPES:
        raise UserError(_strange(str(model_type), str(text.get("model_type")), file))
    facts = family_for(text["model_type"]).parse(text, model_id=model_id, file=file)
    reader = ConfigReader(config, file)
    nested = config.get("vision_config")
    vision = ConfigReader(nested if isinstance(nested, Mapping) else {}, file, prefix="vision_config.")
    vision.problems = reader.problems
    seen = kind.read(reader, vision, facts.hidden_size)
    reader.finish()
    return replace(facts, model_type=str(model_type), vision=seen)


def _blind(model_type: object, file: str | None) -> Diagnostic:
    return Diagnostic(
        message=f"the rows have images, and models of model_type {model_type} are not known to see",
        file=file,
        expected="a model whose model_type is " + ", ".join(sorted(SEES)),
        fix="take such a model; or a dataset of text, or name in dataset.type the format of text that is to be made of its "
        "other columns",
    )


def _strange(model_type: str, inner: str, file: str | None) -> Diagnostic:
    return Diagnostic(
        message=f"the decoder of this {model_type} is of model_type {inner}, whose shape is not known",
        file=file,
        expected="one of " + ", ".join(sorted(MODEL_TYPES)),
        fix="take a model with another decoder",
    )
