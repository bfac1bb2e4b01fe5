"""The base model's licence, and what it asks of who passes on a model made from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

UNKNOWN: Final = (
    "The base model's folder names no licence: look it up where the model comes from before you share this one."
)
_LLAMA: Final = (
    'Show "Built with {name}" where you tell of the model, begin the model\'s name with "{first}", pass on the agreement, '
    'and keep a file "Notice" with: "{full} is licensed under the {full} Community License, Copyright © Meta Platforms, '
    'Inc. All Rights Reserved."'
)
NOTES: Final[Mapping[str, str]] = {
    "apache-2.0": "Pass on the licence and its notices, and say that the weights were changed.",
    "mit": "Pass on the copyright notice and the licence's text.",
    "gemma": "Pass on Gemma's terms of use with their use restrictions, and say that the weights were changed.",
    "llama2": (
        'Pass on the agreement, and keep a file "Notice" with: "Llama 2 is licensed under the LLAMA 2 Community License, '
        'Copyright (c) Meta Platforms, Inc. All Rights Reserved."'
    ),
    "llama3": _LLAMA.format(name="Meta Llama 3", first="Llama 3", full="Meta Llama 3"),
    **{f"llama3.{n}": _LLAMA.format(name="Llama", first="Llama", full=f"Llama 3.{n}") for n in (1, 2, 3)},
    "qwen-research": "For research and evaluation only: another use needs a licence of its own.",
}
"""By the identifiers that model cards have. The licence's own text binds; this is what is most often forgotten of it."""


def read_licence(folder: Path, catalogued: str | None = None) -> dict[str, str | None]:
    """As the model's own card says, else as the catalog does; and its licence file where there is one."""
    card, named = folder / "README.md", None
    if card.is_file():
        head = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
        line = re.search(r"(?m)^license:\s*([\w.\-]+)\s*$", head[1]) if head else None
        named = line[1] if line else None
    files = sorted(p.name for p in folder.glob("LICEN[CS]E*")) if folder.is_dir() else []
    return {
        "licence": named or catalogued,
        "licence_from": "its own card" if named else "axoc's catalog" if catalogued else None,
        "licence_file": files[0] if files else None,
    }


def licence_lines(base: Mapping[str, Any], code: Any) -> list[str]:
    """Markdown of a card's section. ``code`` puts a value into a code span."""
    named = base.get("licence")
    if not named:
        return [UNKNOWN]
    file = f" ({code(base['licence_file'])} of the base model)" if base.get("licence_file") else ""
    told = f", says {base['licence_from']}" if base.get("licence_from") else ""
    bound = f"The base model is under {code(named)}{file}{told}; a model made from it is bound by that licence's terms."
    return [bound, *(["", NOTES[named]] if named in NOTES else [])]
