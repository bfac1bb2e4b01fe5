"""Fixtures: a tokenizer that needs no download, and rows examined as a run examines them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from axoc_runtime.ingest.base import (
    Conversation,
    Document,
    Pictured,
    Preference,
    Prompt,
    Rated,
    Schema,
    Segments,
    Tokens,
)
from axoc_runtime.ingest.examine import Examined, Wanted, examine
from axoc_runtime.ingest.gather import Gathered
from axoc_runtime.ingest.sources import records
from axoc_runtime.job import DatasetJob, Located

EVERY_KIND: Final = (Conversation, Document, Preference, Rated, Prompt, Segments, Tokens)
TEMPLATE: Final = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
CHARACTERS: Final = [*map(chr, range(32, 127)), "\n", "[UNK]"]


@pytest.fixture(scope="session")
def axoc_tokenizer() -> Any:
    """One token a character, ``<s>`` and ``</s>`` around each turn: what is trained on can be read by eye."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({c: i for i, c in enumerate(CHARACTERS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    inner.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="[UNK]")
    made.chat_template = TEMPLATE
    return made


class _Here(Located):
    """Paths count from one folder."""

    def __init__(self, folder: Path) -> None:
        self.base = folder


@pytest.fixture
def axoc_examined(tmp_path: Path) -> Callable[..., list[Examined]]:
    """``axoc_examined(rows, type="auto", support_tool_calls=True)``: the rows through a file, the format that is found,
    and all checks of a row."""

    def run(rows: Sequence[Mapping[str, Any]], **dataset: Any) -> list[Examined]:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        wanted = Wanted(objective="any", accepts=EVERY_KIND, wants="an example")
        of, named = dataset_of("rows.jsonl", **dataset), dataset.get("type", "auto")
        found = Gathered(
            records(_Here(tmp_path), of), None if named == "auto" else _schema(named), (*EVERY_KIND, Pictured)
        )
        gathered = list(found)
        assert found.schema is not None, "no row holds anything"
        return [examine(record, found.schema, of, wanted, tmp_path) for record in gathered]

    return run


def _schema(name: str) -> Schema:
    from axoc_runtime.ingest.registry import named

    found = named(name)
    assert isinstance(found, Schema), f"{name} is no schema"
    return found


def dataset_of(path: str, **changes: Any) -> DatasetJob:
    """A dataset with the spec's defaults."""
    values: dict[str, Any] = {
        "path": path, "type": "auto", "weight": 1.0, "validation_split": 0.0, "split_seed": 42, "system_prompt": None,
        "support_tool_calls": False, "max_seq_length": 4096, "packing": False, "streaming": False,
        "truncation": "right", "train_on": "assistant", "on_bad_row": "fail", "options": {},
    }  # fmt: skip
    return DatasetJob(**values | changes)
