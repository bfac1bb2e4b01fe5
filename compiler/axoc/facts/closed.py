"""Closed models: those whose weights nobody can download, so that nothing can be trained."""

from __future__ import annotations

import re
from typing import Final

from axoc.errors import Diagnostic

_CLOSED: Final = re.compile(
    r"""
    ((us|eu|apac|global)\.)?anthropic[./].*   # a vendor that publishes no weights, also as Bedrock names it
    | ((openrouter|bedrock|vertex_ai)/)?(anthropic/)?claude([-_. :].*|\d.*)?
    | ((openai|azure|azure_openai|openrouter/openai)/)?
      (gpt-?3\.5.*|gpt-?4.*|gpt-?5.*|chatgpt.*|o[1345](-.*)?|text-davinci.*|davinci.*|babbage.*)
    | ((google|models|vertex_ai|openrouter/google)/)?gemini.*
    | ((xai|x-ai)/)?grok-[3-9].*
    | ((mistralai|mistral)/)?mistral-medium.*
    | amazon[./]nova.*
    """,
    re.IGNORECASE | re.VERBOSE,
)
_SMALL: Final = re.compile(r"mini|nano|haiku|flash|lite|micro|gpt-?3\.5|instant|babbage", re.IGNORECASE)

SMALL_SUBSTITUTE: Final = "meta-llama/Llama-3.1-8B-Instruct"
LARGE_SUBSTITUTE: Final = "meta-llama/Llama-3.3-70B-Instruct"


def is_closed(model_id: str) -> bool:
    """True for the ids of API-only models; a path such as ``./claude-notes`` is not one."""
    return _CLOSED.fullmatch(model_id) is not None


def closed_diagnostic(model_id: str) -> Diagnostic:
    """No weights exist to train; an open model of the same class instead (the closed one's size is not published)."""
    substitute = SMALL_SUBSTITUTE if _SMALL.search(model_id) else LARGE_SUBSTITUTE
    return Diagnostic(
        message=f"{model_id} is a closed model: no weights exist to train, it is only served by its vendor",
        expected="a model whose weights can be downloaded",
        fix=f"try an open model near in size, e.g. model.id: {substitute}",
    )
