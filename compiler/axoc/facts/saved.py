"""Modules that PEFT trains whole beside an adapter (``modules_to_save``): the vocabulary's matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from axoc.errors import Diagnostic, UserError
from axoc.facts.families.registry import family_named
from axoc.ir.facts import ModelFacts

SCORE = "score"
"""A reward model's head of one output: new, so PEFT trains it unasked."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    embedding: bool
    head: bool
    elements: int
    """Trained; the frozen originals stay beside them."""


def saved_modules(model: ModelFacts, names: Sequence[str]) -> Saved:
    """What ``names`` train. Tied matrices are one, by either name: the runtime keeps them tied (PEFT's
    ensure_weight_tying). Raises UserError for names of other modules."""
    family = family_named(model.family)
    known = {family.embedding: "embedding", family.head: "head"}
    given = {known[_leaf(name)] for name in names if _leaf(name) in known}
    unknown = [name for name in names if _leaf(name) not in (*known, SCORE)]
    if unknown:
        raise UserError(*(_no_such_module(model, name, tuple(known)) for name in unknown))
    if given and model.tie_word_embeddings:
        given = {"embedding", "head"}
    matrices = min(1, len(given)) if model.tie_word_embeddings else len(given)
    elements = matrices * model.vocab_size * model.hidden_size
    return Saved(embedding="embedding" in given, head="head" in given, elements=elements)


def vocabulary_modules(model: ModelFacts) -> tuple[str, ...]:
    """Names of the matrices that new tokens have rows in: one where they are tied."""
    family = family_named(model.family)
    return (family.embedding,) if model.tie_word_embeddings else (family.embedding, family.head)


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _no_such_module(model: ModelFacts, name: str, known: tuple[str, ...]) -> Diagnostic:
    return Diagnostic(
        message=f"adapter.modules_to_save: {name!r} is no vocabulary matrix of {model.family} models, and no other module "
        "is trained whole beside an adapter",
        expected=" or ".join(known),
        fix="adapt linear layers by adapter.targets, or set adapter: none to train everything",
        link="https://huggingface.co/docs/peft/developer_guides/lora",
    )
