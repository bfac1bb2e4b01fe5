"""Tokens that the spec adds: rows of the embedding and the head, and who trains them beside an adapter."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from axoc.errors import Diagnostic, UserError
from axoc.facts.saved import saved_modules, vocabulary_modules
from axoc.ir.facts import ModelFacts
from axoc.ir.request import PlanRequest

ROW_MULTIPLE: Final = 64
"""Matrix units want the vocabulary's matrices so (NVIDIA, Matrix Multiplication Background, section 4)."""


def grown(model: ModelFacts, request: PlanRequest) -> ModelFacts:
    """With a row for each added token. Vocabularies often have rows that no token uses; as the tokenizer is not read here,
    none is counted on, and the runtime makes the same number."""
    added = len(request.model.tokenizer.added_tokens)
    if not added:
        return model
    rows = -(-(model.vocab_size + added) // ROW_MULTIPLE) * ROW_MULTIPLE
    return replace(model, vocab_size=rows)


def with_trained_rows(request: PlanRequest, model: ModelFacts) -> tuple[PlanRequest, list[str]]:
    """Beside an adapter new rows must be trained: the vocabulary's matrices are added to modules_to_save where the spec
    leaves it open, and a note says so. Raises UserError where it names others."""
    adapter = request.adapter
    if not request.model.tokenizer.added_tokens or adapter is None:
        return request, []
    wanted = vocabulary_modules(model)
    saved = saved_modules(model, adapter.modules_to_save)
    if saved.embedding and saved.head:
        return request, []
    if adapter.modules_to_save:
        raise UserError(_untrained(wanted))
    note = (
        f"added tokens: {' and '.join(wanted)} are trained whole beside the adapter, so that the new rows are learned"
    )
    return replace(request, adapter=replace(adapter, modules_to_save=wanted)), [note]


def _untrained(wanted: tuple[str, ...]) -> Diagnostic:
    return Diagnostic(
        message="model.tokenizer.added_tokens: their rows would never be trained beside this adapter",
        expected=f"adapter.modules_to_save: [{', '.join(wanted)}]",
        fix="write it so, or remove modules_to_save",
    )
