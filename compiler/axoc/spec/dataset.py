"""The data: one dataset, or several with weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from axoc.spec.numbers import Number, Whole
from axoc.spec.parts import EMPTY, Either, Part
from axoc.spec.problems import wrong
from axoc.spec.scalars import is_null
from axoc.spec.words import Flag, Options, Text, Words

SEED: Final = Whole(minimum=0, maximum=2**32 - 1)
"""What NumPy takes as a seed."""
TRUNCATION: Final = Words(
    ("right", "left", "split", "drop"), hints={"cut": "right", "truncate": "right", "start": "left", "end": "right"}
)
TRAIN_ON: Final = Words(
    ("assistant", "last_turn", "all"), hints={"last": "last_turn", "inputs": "all", "answers": "assistant"}
)
ON_BAD_ROW: Final = Words(
    ("fail", "drop", "quarantine"), hints={"error": "fail", "skip": "drop", "ignore": "drop", "keep": "quarantine"}
)


class Dataset(Part):
    """Where rows come from and what becomes of them."""

    short: ClassVar[str | None] = "path"

    path: Annotated[str | None, Text(what="a file, folder, glob, hub id or address", null=True)] = Field(
        default=None,
        description="File, folder, glob, hub id, or s3://, gs://, az://, https://. May be missing in a dry run.",
    )
    type: Annotated[str, Text(what="auto or a dataset format")] = Field(
        default="auto", description="A registered format."
    )
    weight: Annotated[float, Number(open_minimum=True)] = Field(
        default=1.0,
        description="Times each row is taken in an epoch: 2 is twice, 0.5 half of the rows. With streaming, a share of all rows.",
    )
    validation_split: Annotated[float, Number(maximum=1.0, open_maximum=True)] = Field(
        default=0.1, description="Share of rows held out for evaluation."
    )
    split_seed: Annotated[int, SEED] = Field(default=42, description="Seed of that split.")
    system_prompt: Annotated[str | None, Text(lines=True, null=True)] = Field(
        default=None, description="System message put before every conversation."
    )
    support_tool_calls: Annotated[bool, Flag()] = Field(default=False, description="Keep tool calls and their results.")
    max_seq_length: Annotated[int, Whole(minimum=8, maximum=2**24)] = Field(
        default=4096, description="Tokens in a row; longer rows are cut."
    )
    packing: Annotated[bool | str, Flag(auto=True)] = Field(
        default="auto", description="Put several documents in a row."
    )
    mean_tokens: Annotated[float | None, Number(open_minimum=True, words=("null",))] = Field(
        default=None,
        description="Mean tokens of a row, where known: time is then of such rows, and packing chosen by it.",
    )
    streaming: Annotated[bool, Flag()] = Field(
        default=False, description="Read while training. Needs training.max_steps and no validation split."
    )
    truncation: Annotated[str, TRUNCATION] = Field(
        default="right",
        description="What becomes of rows above max_seq_length: cut on the right or left, split into rows, or dropped.",
    )
    train_on: Annotated[str, TRAIN_ON] = Field(
        default="assistant", description="Tokens trained on: the assistant's, those of its last turn, or all."
    )
    on_bad_row: Annotated[str, ON_BAD_ROW] = Field(
        default="fail", description="Rows that cannot be used stop the run, are left out, or are kept in a file."
    )
    options: Annotated[dict[str, Any], Options()] = Field(
        default_factory=dict, description="Options handed to the dataset format.", json_schema_extra=EMPTY
    )


def _read(value: Any, long: Callable[[Any], Any]) -> Any:
    if isinstance(value, (list, tuple)):
        if not value:
            raise wrong("is an empty list", expected="a dataset, or a list of them", fix="add - path: data/train.jsonl")
        return long(value)
    return long([{} if is_null(value) else value])


_ITEM: Final = Either(Dataset, lambda value, long: long(value), ({"type": "string"},))
ONE_OR_MORE: Final = Either(tuple[Annotated[Dataset, _ITEM], ...], _read, ({"type": "null"},), or_item=True)
"""A dataset, a path, or a list of them."""
