"""The tokenizer: the model's own, or another, with tokens and a chat template of the spec's."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field

from axoc.spec.parts import MANY, Either, Part
from axoc.spec.words import Text

_Token = Annotated[str, Text(what="a token")]


class Tokenizer(Part):
    """How text becomes tokens."""

    short: ClassVar[str | None] = "source"

    source: Annotated[str | None, Text(what="a hub id or a folder", null=True)] = Field(
        default=None, description="Hub id or folder of another tokenizer than the model's own."
    )
    type: Annotated[str, Text(what="auto or a tokenizer plugin's name")] = Field(
        default="auto", description="Tokenizer plugin that loads it; auto takes one made for the family, if any."
    )
    chat_template: Annotated[str | None, Text(what="a Jinja template or the path of one", null=True, lines=True)] = (
        Field(
            default=None,
            description="Chat template in the place of the tokenizer's: Jinja, or the path of a file with it.",
        )
    )
    added_tokens: Annotated[tuple[_Token, ...], MANY] = Field(
        default=(), description="Tokens to add; embedding and head grow by a row for each, and are trained."
    )


LOADED: Final = Either(Tokenizer, lambda value, long: long(value), ({"type": ["string", "null"]},))
"""A Tokenizer, or the source alone."""
