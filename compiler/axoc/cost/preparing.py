"""Host memory of preparing the data: one process reads, and as many as the node has processors (32 at most) encode."""

from __future__ import annotations

from typing import Final

from axoc.cost.scenario import Scenario
from axoc.units import MIB

MOST_PROCESSES: Final = 32
"""The runtime's preparation/pool.py."""
READER_BYTES: Final = 52 * MIB
"""Python, Arrow and transformers without torch; measured (docs/host-memory.md)."""
TOKENIZER_BYTES_A_TOKEN: Final = 1244
"""Of the vocabulary, with its merges: 58.4 MiB of 49,152, measured."""
ENCODER_BYTES: Final = 95 * MIB
"""Of each forked process without its rows: what it copies of the reader by touching it, and what the tokenizer works with. What
10,000 rows of 268 tokens were measured to take (docs/preparation.md), less the terms here."""
ENCODED_TOKEN_BYTES: Final = 8 + 32 + 8 + 8
"""Until a unit is written: a token's number, an object with a place in the list of ids and one in that of labels, and both as
int32 (ingest/encode.py, preparation/shards.py)."""
AHEAD: Final = 2
"""Units read ahead for each process (pool.py), with 2,048 records each (work.py)."""
UNIT_RECORDS: Final = 2048
PICTURED_RECORDS: Final = 64
"""Of rows about images."""


def tokenizer_bytes(scenario: Scenario) -> float:
    return float(TOKENIZER_BYTES_A_TOKEN * scenario.model.vocab_size)


def preparing_bytes(scenario: Scenario) -> float:
    """The tokenizer is read once: forked processes share its pages. Rows in flight are whole in the reader and in a process."""
    processes = min(scenario.cluster.cpu_cores_per_node, MOST_PROCESSES)
    if scenario.data_rows is not None and scenario.data_rows <= UNIT_RECORDS:
        processes = 0  # a single unit is encoded where it is read
    own = READER_BYTES + tokenizer_bytes(scenario)
    return own + max(processes, 1) * (ENCODER_BYTES + unit_bytes(scenario))


def unit_bytes(scenario: Scenario) -> float:
    """Of one process: the records that wait for it, and the rows that it has encoded."""
    records = PICTURED_RECORDS if scenario.model.vision is not None else UNIT_RECORDS
    if scenario.data_rows:
        records = min(records, scenario.data_rows)
    text = float(scenario.data_bytes) / scenario.data_rows if scenario.data_rows and scenario.data_bytes else 0.0
    return records * (AHEAD * text + ENCODED_TOKEN_BYTES * row_tokens(scenario, text))


def row_tokens(scenario: Scenario, text_bytes: float) -> float:
    """Where the lengths are not known at most: no token stands for less than a byte."""
    if scenario.lengths is not None:
        found = scenario.trained_lengths
        return sum(n * share for n, share in zip(found.tokens, found.shares, strict=True))
    return min(float(scenario.seq_length), text_bytes or float(scenario.seq_length))
