"""OpenAssistant's message trees: of each tree, the conversation along the best-ranked replies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Conversation, Message, Record, Schema
from axoc_runtime.ingest.messages import conversation, known_role, message

DEEPEST: Final = 100
"""Messages of a conversation. A row is nested as deeply, and must be written and read again."""
LARGEST_TREE: Final = 10_000
"""Messages; what says that it is larger is no tree, and is not held in memory."""
TREE: Final = "message_tree_id"


class OpenAssistant(Schema):
    """``prompt`` of {text, role, rank, replies: [the same …]}. It ends with the last answer of the assistant."""

    name = "openassistant"
    makes = Conversation
    columns = ("prompt", TREE)
    optional = ("tree_state",)

    def recognizes(self, row: Mapping[str, Any]) -> bool:
        return super().recognizes(row) and isinstance(row["prompt"], Mapping)

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        return _best_path(row["prompt"], "prompt")


class OpenAssistantMessages(Schema):
    """A message a row, with its parent's id: rows of a tree that follow one another are joined into one, the tree's first
    message with its replies. Rows of one tree that stand apart are told of, as their parent is missing."""

    name = "openassistant_messages"
    makes = Conversation
    columns = ("message_id", TREE, "text", "role")
    optional = ("parent_id",)

    def gather(self, records: Iterable[Record]) -> Iterator[Record]:
        for run in _runs(records):
            yield from _trees(run)

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        return _best_path(row, "")


def _runs(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Rows that follow one another with one tree's id. One that could not be read parts none."""
    run: list[Record] = []
    tree: Any = None
    for record in records:
        if record.problem is None:
            found = record.row.get(TREE)
            if run and (found != tree or len(run) >= LARGEST_TREE):
                yield run
                run = []
            tree = found
        run.append(record)
    yield run


def _trees(run: list[Record]) -> Iterator[Record]:
    """One record a tree, in the place of its first message; every other one that is in no tree, with its problem."""
    nodes: dict[str, dict[str, Any]] = {}
    owners: dict[str, Record] = {}
    for record in run:
        identity = record.row.get("message_id")
        if isinstance(identity, str) and identity not in nodes:
            nodes[identity], owners[identity] = {**record.row, "replies": []}, record
    for node in nodes.values():
        if (parent := nodes.get(str(node.get("parent_id")))) is not None:
            parent["replies"].append(node)
    inside = _inside(nodes)
    for record in run:
        identity = str(record.row.get("message_id"))
        if record.problem is not None:
            yield record
        elif owners.get(identity) is not record or identity not in inside:
            yield replace(record, problem=_astray(record, owners.get(identity)), row={}, raw=str(dict(record.row)))
        elif inside[identity]:
            yield replace(record, row=nodes[identity])


def _inside(nodes: Mapping[str, dict[str, Any]]) -> dict[str, bool]:
    """Messages that a tree's first message leads to -> whether it is that one."""
    found: dict[str, bool] = {}
    waiting = [(node, 0) for node in nodes.values() if node.get("parent_id") is None]
    while waiting:
        node, depth = waiting.pop()
        found[node["message_id"]] = depth == 0
        waiting += [(reply, depth + 1) for reply in node["replies"] if depth + 1 < DEEPEST]
        node["replies"] = node["replies"] if depth + 1 < DEEPEST else []
    return found


def _astray(record: Record, owner: Record | None) -> BadRow:
    identity = record.row.get("message_id")
    if not isinstance(identity, str):
        return BadRow("is no text", "message_id", check="type", fix="give every message an id, or remove the row")
    if owner is not record and owner is not None:
        return BadRow(f"is that of {owner.place} too", "message_id", check="value", fix="remove one of the two")
    why = f"is {str(record.row.get('parent_id'))[:40]!r}: no row of this {TREE} beside it leads there"
    return BadRow(why, "parent_id", check="value", fix=f"sort the rows by {TREE}, or remove what answers nothing")


def _best_path(node: Any, column: str) -> Conversation:
    """``column``: where the tree's first message stands in the row; empty where it is the row."""
    said: list[Message] = []
    at = column
    while node is not None and len(said) < DEEPEST:
        said.append(_message(node, at or "text"))
        node, index = _best(node.get("replies"), at or "replies")
        at = f"{at}.replies[{index}]".removeprefix(".")
    while said and said[-1]["role"] != "assistant":
        said.pop()
    return conversation(said, column or "text")


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
