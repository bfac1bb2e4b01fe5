"""The planner's chunks of the loss are the runtime's."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow  # imports torch


@pytest.mark.parametrize("words", [104, 32_000, 128_256, 262_208, 2**29])
def test_chunks_are_of_as_many_rows(words: int) -> None:
    from axoc.cost import chunked
    from axoc_runtime.kernels.chunked_loss import LOGITS_AT_ONCE, rows_at_once

    assert chunked.LOGITS_AT_ONCE == LOGITS_AT_ONCE
    assert int(chunked.chunk_rows(1e12, words)) == rows_at_once(words)
    assert rows_at_once(words) * words <= LOGITS_AT_ONCE or rows_at_once(words) == 1


@pytest.mark.parametrize(
    ("tokens", "width", "words"), [(8192, 2048, 128_256), (2048, 896, 151_936), (3, 4096, 32_000), (1000, 64, 100)]
)
def test_ligers_chunks_are_of_as_many_rows_as_the_traces(tokens: int, width: int, words: int) -> None:
    from axoc.cost import liger_loss
    from axoc_runtime.trace.liger_loss import chunk_rows

    assert int(liger_loss.chunk_rows(float(tokens), width, words)) == chunk_rows(tokens, width, words)
