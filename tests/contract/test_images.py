"""The compiler looks at a first row as the runtime looks at all of them, and refuses a plan that its run would refuse."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from axoc.errors import UserError
from axoc.facts import first_row, lock
from axoc.inputs import read_inputs
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.ingest import base, sources, turns
from axoc_runtime.ingest.gather import Gathered
from axoc_runtime.ingest.schemas import vision

TURN = {"role": "assistant", "content": "A cat."}
ROWS: dict[str, tuple[Any, str]] = {
    "beside.jsonl": ({"messages": [{"role": "user", "content": "<image>"}, TURN], "images": ["a.png"]}, "images"),
    "within.json": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "a.png"}]}, TURN]},
        "messages[0].content",
    ),
    "asked.csv": ("image,question,answer\na.png,What?,A cat.\n", "image"),
}
SPEC = """version: 1
model: {id: HuggingFaceTB/SmolLM2-135M}
dataset: {path: PATH}
"""


def test_both_know_the_same_columns() -> None:
    assert set(first_row.IMAGES) == base.IMAGES == set(vision.IMAGES)
    assert first_row.TURNS == vision.TURNS and first_row.IMAGE_PARTS == turns.IMAGE_PARTS
    assert lock.ABOUT_DATA == sources.ABOUT_DATA


def written(folder: Path, name: str) -> Path:
    row = ROWS[name][0]
    text = row if isinstance(row, str) else json.dumps([row, row] if name.endswith("json") else row)
    (folder / name).write_text(f"{text}\n")
    return folder / name


def inputs(folder: Path, path: str, more: str = "") -> Any:
    (folder / "spec.yaml").write_text(SPEC.replace("PATH", path) + more)
    return read_inputs(folder / "spec.yaml", None, frozen=False)


@pytest.mark.parametrize("name", ROWS)
def test_a_plan_on_rows_with_images_is_refused_before_it_is_made(tmp_path: Path, name: str) -> None:
    file = written(tmp_path, name)
    with pytest.raises(UserError) as caught:
        inputs(tmp_path, str(file))
    (told,) = caught.value.diagnostics
    assert f"({ROWS[name][1]})" in told.message and told.fix and told.file == str(file)
    inputs(tmp_path, f"{file}, type: chat")
    inputs(tmp_path, str(file), "plugins: [.]\n")


def test_parquet_says_so_in_its_footer(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "question": datasets.Value("string")})
    row = {"image": {"bytes": b"x", "path": None}, "question": "q"}
    datasets.Dataset.from_list([row], features=features).to_parquet(tmp_path / "a.parquet")
    datasets.Dataset.from_list([{"question": "q"}]).to_parquet(tmp_path / "b.parquet")
    assert first_row.image_column(tmp_path / "a.parquet") == "its features"
    assert first_row.image_column(tmp_path / "b.parquet") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"[", b"{", b"\xff\xfe", b"[[]]", b'{"images": []}', b'{"messages": [1, {"content": [2]}]}', b"[" * 9999],
)
@pytest.mark.parametrize("ending", ["json", "jsonl", "csv", "parquet", "jsonl.gz"])
def test_what_cannot_be_told_is_no_refusal(tmp_path: Path, content: bytes, ending: str) -> None:
    (tmp_path / f"a.{ending}").write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    assert first_row.image_column(tmp_path / f"a.{ending}") is None


def test_a_run_is_refused_at_its_first_row() -> None:
    """Where a plan could not look: hub ids, stores, archives."""
    row = ROWS["beside.jsonl"][0]
    records = [base.Record(place=f"a:{i}", row=row) for i in (1, 2)]
    with pytest.raises(
        RuntimeFailure, match=r"a:1: is in the format vision_chat: its rows have images, and this job is one of text"
    ):
        list(Gathered(records, None, (base.Conversation,)))
    assert len(list(Gathered(records, None, (base.Conversation, base.Pictured)))) == 2
