"""Conversations about images, which stand in the turns' parts, or in a column beside with ``<image>`` in the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Message, Pictured, Schema
from axoc_runtime.ingest.messages import conversation, message, text
from axoc_runtime.ingest.schemas.columns import first_of
from axoc_runtime.ingest.turns import IMAGE_PARTS, turn

TURNS: Final = ("messages", "conversations")
IMAGES: Final = ("images", "image")
MARK: Final = "<image>"


class VisionChat(Schema):
    """Images are bytes, ``{bytes, path}`` as the datasets library has them, data: URLs, or paths from the data's folder."""

    name = "vision_chat"
    makes = Pictured
    columns = ()
    optional = (*TURNS, *IMAGES, "system")

    def recognizes(self, row: Mapping[str, Any]) -> bool:
        turns = first_of(row, TURNS)
        if turns is None or not isinstance(row[turns], list):
            return False
        if {"chosen", "rejected", "label"} & set(row):
            return False
        return first_of(row, IMAGES) is not None or any(_parts(t) for t in row[turns])

    def fits(self, columns: frozenset[str]) -> bool:
        return first_of(columns, TURNS) is not None and first_of(columns, IMAGES) is not None

    def convert(self, row: Mapping[str, Any]) -> Pictured:
        column = first_of(row, TURNS)
        if column is None or not isinstance(row[column], list) or not row[column]:
            raise BadRow("is no list of turns", column or "messages", check="type")
        images: list[Any] = []
        said = [self._turn(one, f"{column}[{i}]", images) for i, one in enumerate(row[column])]
        beside = _beside(row)
        marks = sum(m["content"].count(MARK) for m in said) - len(images)
        if beside and marks not in (0, len(beside)):
            message = f"says {MARK} {marks} times, and the row has {len(beside)} images"
            raise BadRow(message, column, check="image", fix=f"write {MARK} once for each image")
        return Pictured(conversation=conversation(said, column), images=(*images, *beside))

    @staticmethod
    def _turn(value: Any, column: str, images: list[Any]) -> Message:
        parts = _parts(value)
        if not parts:
            return turn(value, column)
        said = ""
        for part in value["content"]:
            if part.get("type") in IMAGE_PARTS:
                images.append(_image(part))
                said += MARK
            else:
                said += str(part.get("text") or "")
        return turn({**value, "content": said}, column)


class VisionQa(Schema):
    """An image, a question about it, and the answer."""

    name = "vision_qa"
    makes = Pictured
    columns = ("image", "question", "answer")

    def convert(self, row: Mapping[str, Any]) -> Pictured:
        said = [message("user", f"{MARK}{text(row, 'question')}"), message("assistant", text(row, "answer"))]
        return Pictured(conversation=conversation(said, "answer"), images=(row["image"],))


def _parts(value: Any) -> bool:
    """Whether a turn is made of parts, one of them an image."""
    content = value.get("content") if isinstance(value, Mapping) else None
    return isinstance(content, list) and any(isinstance(p, Mapping) and p.get("type") in IMAGE_PARTS for p in content)


def _image(part: Mapping[str, Any]) -> Any:
    """In OpenAI's spelling ``image_url`` is {url}; in Anthropic's ``source`` is {type: base64, media_type, data}, or {url}."""
    found = next((part[name] for name in ("image_url", "image", "source", "url", "path") if part.get(name)), None)
    if not isinstance(found, Mapping):
        return found
    if found.get("type") == "base64":
        return f"data:{found.get('media_type')};base64,{found.get('data')}"
    return found.get("url", found)


def _beside(row: Mapping[str, Any]) -> list[Any]:
    column = first_of(row, IMAGES)
    value = row[column] if column is not None else None
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
