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
