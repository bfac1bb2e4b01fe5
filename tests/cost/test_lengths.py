"""Rows that are not full: expected padding, packs, and what attention sees, against counts of rows that were drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from asking import facts, request
from axoc.cost import lengths
from axoc.cost.columns import Columns
from axoc.cost.lengths import longest, mean, of_mean, packs_per_row, seen
from axoc.cost.scenario import Scenario
from axoc.cost.time import TimeColumns, step_time
from axoc.ir.facts import RowLengths
from axoc.search.choose import scenarios
from hypothesis import given, settings
from hypothesis import strategies as st


def drawn(rows: np.ndarray, source: str = "drawn") -> RowLengths:  # type: ignore[type-arg]
    tokens, counts = np.unique(rows, return_counts=True)
    return RowLengths(
        tokens=tuple(map(float, tokens)), shares=tuple(float(n) for n in counts / counts.sum()), source=source
    )


CHAT = np.minimum(np.ceil(np.random.default_rng(1).lognormal(np.log(300), 0.8, 4000)), 2048)


@pytest.mark.parametrize("rows", [1, 2, 8, 32])
def test_the_expected_longest_row_is_what_batches_have(rows: int) -> None:
    batches = np.random.default_rng(2).choice(CHAT, (20_000, rows)).max(axis=1)
    assert longest(drawn(CHAT), np.array([float(rows)]))[0] == pytest.approx(batches.mean(), rel=0.01)


def test_what_a_token_sees_is_the_mean_over_tokens() -> None:
    assert seen(drawn(CHAT)) == pytest.approx(np.repeat(CHAT, CHAT.astype(int)).mean())


@settings(max_examples=60)
@given(rows=st.lists(st.integers(1, 512), min_size=1, max_size=200))
def test_no_packing_needs_fewer_packs_than_are_planned_with_but_for_what_a_packer_leaves(rows: list[int]) -> None:
    """First fit decreasing, the plainest packer there is, against the share that is planned with."""
    packs: list[int] = []
    for length in sorted(rows, reverse=True):
        place = next((i for i, filled in enumerate(packs) if filled + length <= 512), None)
        if place is None:
            packs.append(length)
        else:
            packs[place] += length
    planned = packs_per_row(drawn(np.array(rows)), 512) * len(rows)
    assert planned <= len(packs) / lengths.BEST_FIT + 1e-6


def test_on_chat_the_packs_are_those_of_a_packer() -> None:
    packs = np.zeros(0)
    for length in sorted(CHAT, reverse=True):
        fitting = np.flatnonzero(packs + length <= 2048)
        if len(fitting):
            packs[fitting[0]] += length
        else:
            packs = np.append(packs, length)
    assert packs_per_row(drawn(CHAT), 2048) * len(CHAT) == pytest.approx(len(packs), rel=0.025)


@settings(max_examples=50)
@given(tokens=st.floats(1.0, 4096.0), limit=st.sampled_from([128, 2048, 4096]))
def test_a_mean_alone_gives_rows_of_that_mean_within_the_limit(tokens: float, limit: int) -> None:
    found = of_mean(min(tokens, limit), limit, "stated")
    assert sum(found.shares) == pytest.approx(1.0) and max(found.tokens) <= limit
    assert mean(found) == pytest.approx(min(tokens, limit), rel=0.03)


def scenario(packing: bool, found: RowLengths | None, **changes: object) -> Scenario:
    made = request("meta-llama/Llama-3.2-1B", model__kernels="liger", model__compile=False, dataset__packing=packing)
    base = scenarios(made, facts(made, "h100-sxm-80gb"))[0][0].variant(0)
    return replace(base, lengths=found, **changes)  # type: ignore[arg-type]


def timed(one: Scenario, micro: int = 8) -> TimeColumns:
    column = np.array([1])
    return step_time(
        one,
        Columns(
            strategy=column * 0, data_parallel=column, tensor_parallel=column, replicate_degree=column,
            micro_batch=column * micro, accumulation=column, checkpointed_layers=column * 0, offload=column * 0,
        ),
    )  # fmt: skip


def test_full_rows_are_what_is_taken_where_no_lengths_are_known() -> None:
    full = RowLengths(tokens=(2048.0,), shares=(1.0,), source="full")
    for packing in (False, True):
        known, unknown = timed(scenario(packing, full)), timed(scenario(packing, None))
        assert unknown.padding_share[0] == 0
        if not packing:  # packs of full rows are as many as rows, at a packer's fill
            assert known.padding_share[0] == pytest.approx(0)
            assert known.step_seconds[0] == pytest.approx(unknown.step_seconds[0])


def test_padding_is_computed_and_not_counted() -> None:
    padded, packed = (timed(scenario(packing, drawn(CHAT))) for packing in (False, True))
    expected = 1 - CHAT.mean() / longest(drawn(CHAT), np.array([8.0]))[0]
    assert padded.padding_share[0] == pytest.approx(expected)
    assert packed.padding_share[0] == pytest.approx(0.02, abs=0.001)
    assert padded.tokens_per_second[0] * padded.step_seconds[0] == pytest.approx(8 * CHAT.mean())
    assert packed.tokens_per_second[0] > 2 * padded.tokens_per_second[0]
    assert packed.mfu[0] > padded.mfu[0]


def test_attention_within_documents_costs_less_than_over_whole_rows() -> None:
    whole, documents = timed(scenario(True, None)), timed(scenario(True, drawn(CHAT)))
    assert documents.breakdown["attention"][0] < 0.8 * whole.breakdown["attention"][0]
    assert documents.breakdown["matrix products"][0] == pytest.approx(whole.breakdown["matrix products"][0])


def test_padded_rows_get_a_mask_and_a_slower_kernel_but_one_alone_does_not() -> None:
    several, alone = drawn(CHAT), drawn(CHAT[:1])
    assert (
        timed(scenario(False, several), micro=1).breakdown["attention"][0]
        < 0.3 * (timed(scenario(False, several), micro=2).breakdown["attention"][0])
    )
    assert not lengths.is_padded(scenario(False, alone), columns := _two())[0] and len(columns) == 1
    assert lengths.is_padded(scenario(False, several), columns)[0]
    assert not lengths.is_padded(scenario(True, several), columns)[0]


def _two() -> Columns:
    column = np.array([1])
    return Columns(
        strategy=column * 0, data_parallel=column, tensor_parallel=column, replicate_degree=column,
        micro_batch=column * 2, accumulation=column, checkpointed_layers=column * 0, offload=column * 0,
    )  # fmt: skip


def test_rows_are_cut_at_the_longest_that_is_trained() -> None:
    one = scenario(False, drawn(CHAT * 4))
    assert max(one.trained_lengths.tokens) == 2048
    assert mean(one.trained_lengths) == pytest.approx(np.minimum(CHAT * 4, 2048).mean())


def test_kernels_compute_whole_tiles_of_documents() -> None:
    """Documents of 100 tokens are as much work as of 128; full rows of a multiple of it are what they were."""
    short = RowLengths(tokens=(100.0,), shares=(1.0,), source="")
    assert seen(short) == 100.0
    assert seen(short, tile=128) == pytest.approx(128**2 / 100)
    whole = RowLengths(tokens=(2048.0,), shares=(1.0,), source="")
    assert seen(whole, tile=128) == 2048.0
