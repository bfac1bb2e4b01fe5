"""Rows of unequal length for the benchmarks: chat-like lengths, padded side by side or packed, as the runtime hands them over.

Lengths are lognormal (median 300, sigma 0.8), cut at the longest row: those of the baseline measurements. The same seed gives
the same rows, padded or packed, to the planner and to the machine.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

MEDIAN: Final = 300
SIGMA: Final = 0.8
SHORTEST: Final = 8
COUNTED: Final = 4096
"""Rows that the planner's histogram is of."""
IGNORED: Final = -100


def chat_lengths(rows: int, longest: int, seed: int = 0) -> list[int]:
    drawn = np.random.default_rng(seed).lognormal(np.log(MEDIAN), SIGMA, rows)
    return [int(n) for n in np.clip(drawn, SHORTEST, longest)]


def packs(lengths: list[int], longest: int) -> list[list[int]]:
    """Best fit decreasing: each row into the fullest pack that has room."""
    room: list[int] = []
    made: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        fitting = [(left, i) for i, left in enumerate(room) if left >= length]
        if fitting:
            left, place = min(fitting)
            room[place] = left - length
            made[place].append(length)
        else:
            room.append(longest - length)
            made.append([length])
    return made


class Rows:
    """Of random tokens; a row is its documents' lengths."""

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        import torch

        if index >= len(self.rows):
            raise IndexError(index)
        draw = torch.Generator().manual_seed(index)
        return {"documents": [torch.randint(5, 1000, (n,), generator=draw) for n in self.rows[index]]}


def chat_rows(count: int, longest: int, *, packed: bool) -> Rows:
    """``count`` rows of single documents; or as many packs, of as many documents as they need."""
    if not packed:
        return Rows([[n] for n in chat_lengths(count, longest)])
    mean = float(np.mean(chat_lengths(COUNTED, longest)))
    documents = chat_lengths(round(1.3 * count * longest / mean), longest)
    whole = sorted(packs(documents, longest), key=lambda pack: -sum(pack))
    return Rows(whole[:count])


def padded(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """To the longest of the batch, with a mask."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    each = [row["documents"][0] for row in rows]
    ids = pad_sequence(each, batch_first=True, padding_value=0)
    mask = pad_sequence([torch.ones_like(n) for n in each], batch_first=True, padding_value=0)
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, IGNORED)}


class Packed:
    """All documents of all packs in one row; what is left of it is a document of its own that nothing is learned from."""

    def __init__(self, longest: int) -> None:
        self.longest = longest

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        documents = [d for row in rows for d in row["documents"]]
        left = len(rows) * self.longest - sum(len(d) for d in documents)
        labels = [torch.cat([torch.tensor([IGNORED]), d[1:]]) for d in documents]
        if left:
            documents, labels = (
                [*documents, torch.zeros(left, dtype=torch.long)],
                [*labels, torch.full((left,), IGNORED)],
            )
        ends = torch.tensor([0, *(len(d) for d in documents)]).cumsum(0).to(torch.int32)
        return {
            "input_ids": torch.cat(documents)[None],
            "labels": torch.cat(labels)[None],
            "position_ids": torch.cat([torch.arange(len(d)) for d in documents])[None],
            "cu_seq_lens_q": ends,
            "cu_seq_lens_k": ends,
            "max_length_q": self.longest,
            "max_length_k": self.longest,
        }  # fmt: skip
