"""Packs to one row of documents, of the same length in every batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from axoc_runtime.objectives.perplexity import IGNORED


class PackCollator:
    """``input_ids``, ``labels`` and ``position_ids`` of shape [1, tokens], int64, tokens being packs of a batch x tokens of a
    pack; ``cu_seq_lens_q`` and ``_k``, int32 [documents + 1], where the documents end; ``max_length_q`` and ``_k``, the
    longest document there can be.

    Positions begin anew in each document. Nothing is learned from a document's first token: it would be predicted from
    another one's end. What is left at the end is documents of padding, of which nothing is learned.
    """

    def __init__(self, pad_token_id: int, *, packs: int, capacity: int) -> None:
        self.pad_token_id, self.tokens, self.capacity = pad_token_id, packs * capacity, capacity

    def __call__(self, packs: list[dict[str, Any]]) -> dict[str, Any]:
        documents = [document for pack in packs for document in pack["documents"]]
        lengths = [len(document["input_ids"]) for document in documents]
        left = self.tokens - sum(lengths)
        if left < 0:
            raise ValueError(f"{sum(lengths)} tokens are more than a batch of {self.tokens}")
        lengths += [min(self.capacity, left - done) for done in range(0, left, self.capacity)]
        ends = np.cumsum([0, *lengths], dtype=np.int32)
        labels = self._joined([d["labels"] for d in documents], left, IGNORED)
        labels[ends[:-1]] = IGNORED
        boundaries = torch.from_numpy(ends)
        return {
            "input_ids": _row(self._joined([d["input_ids"] for d in documents], left, self.pad_token_id)),
            "labels": _row(labels),
            "position_ids": _row(np.arange(self.tokens) - np.repeat(ends[:-1].astype(np.int64), lengths)),
            "cu_seq_lens_q": boundaries,
            "cu_seq_lens_k": boundaries.clone(),
            "max_length_q": self.capacity,
            "max_length_k": self.capacity,
        }

    @staticmethod
    def _joined(parts: list[Any], left: int, fill: int) -> Any:
        return np.concatenate([*parts, np.full(left, fill)], dtype=np.int64)


def _row(values: Any) -> torch.Tensor:
    return torch.from_numpy(values).unsqueeze(0)
