"""Rows that are too long: what ``dataset.truncation`` makes of them."""

from __future__ import annotations

from axoc_runtime.ingest.base import BadRow

Row = tuple[list[int], list[int]]
"""Ids and labels."""


def cut(ids: list[int], labels: list[int], limit: int, how: str, first: int | None) -> list[Row]:
    """Rows of at most ``limit`` tokens. ``first``: the token that begins every text, which a cut on the left keeps.

    Raises BadRow where the row is to be dropped. Pieces of a split that nothing is learned from are left out.
    """
    if len(ids) <= limit:
        return [(ids, labels)]
    if how == "drop":
        message = f"has {len(ids):,} tokens, and dataset.max_seq_length is {limit:,}"
        raise BadRow(message, check="too-long", fix="raise max_seq_length, or set dataset.truncation: right")
    if how == "split":
        return windows(ids, labels, limit)
    if how == "left":
        head = 1 if ids[0] == first else 0
        kept = slice(len(ids) - limit + head, None)
        return [(ids[:head] + ids[kept], labels[:head] + labels[kept])]
    return [(ids[:limit], labels[:limit])]


def windows(ids: list[int], labels: list[int], limit: int) -> list[Row]:
    """The row piece by piece; the token after a piece's end is learned in the next one, but for its first."""
    pieces = [(ids[i : i + limit], labels[i : i + limit]) for i in range(0, len(ids), limit)]
    return [(i, learned) for i, learned in pieces if any(label >= 0 for label in learned[1:])]
