"""OpenAssistant's message trees: of each tree, the conversation along the best-ranked replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Conversation, Message, Schema
from axoc_runtime.ingest.messages import conversation, known_role, message

DEEPEST: Final = 1000


class OpenAssistant(Schema):
    """``prompt`` of {text, role, rank, replies: [the same …]}. It ends with the last answer of the assistant."""

    name = "openassistant"
    makes = Conversation
    columns = ("prompt", "message_tree_id")
    optional = ("tree_state",)

    def recognizes(self, row: Mapping[str, Any]) -> bool:
        return super().recognizes(row) and isinstance(row["prompt"], Mapping)

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        said: list[Message] = []
        node, column = row["prompt"], "prompt"
        while node is not None and len(said) < DEEPEST:
            said.append(self._message(node, column))
            node, index = _best(node.get("replies"), column)
            column = f"{column}.replies[{index}]"
        while said and said[-1]["role"] != "assistant":
            said.pop()
        return conversation(said, "prompt")

    @staticmethod
    def _message(node: Any, column: str) -> Message:
        if not isinstance(node, Mapping) or not isinstance(node.get("text"), str) or not node["text"].strip():
            raise BadRow("has no text", column, check="empty")
        return message(known_role(node.get("role"), column), node["text"])


def _best(replies: Any, column: str) -> tuple[Any, int]:
    """The reply of the lowest rank, and where it stands; unranked and deleted ones come last."""
    if not replies:
        return None, 0
    if not isinstance(replies, list) or not all(isinstance(r, Mapping) for r in replies):
        raise BadRow("has replies that are no list of messages", column, check="type")
    alive = [(i, r) for i, r in enumerate(replies) if not r.get("deleted")]
    if not alive:
        return None, 0
    index, node = min(alive, key=lambda entry: _rank(entry[1]))
    return node, index


def _rank(node: Mapping[str, Any]) -> float:
    rank = node.get("rank")
    return float(rank) if isinstance(rank, int | float) and not isinstance(rank, bool) else float("inf")
