"""Streams: mixed exactly, the same every time, dealt to ranks, and gone on with anywhere."""

from __future__ import annotations

import csv
import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from axoc_runtime import prepare
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.job import Job, read_job
from axoc_runtime.preparation import stream
from axoc_runtime.preparation.stream import Journal, Listing, Windows, items, mixed
from hypothesis import given
from hypothesis import strategies as st

from runtime.jobs import job_value

WINDOW = 32


@given(weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=6), draws=st.integers(1, 400))
def test_a_mixture_is_never_far_from_its_shares(weights: list[float], draws: int) -> None:
    counts = Counter(islice(mixed(weights), draws))
    for index, weight in enumerate(weights):
        assert abs(counts[index] - draws * weight / sum(weights)) <= len(weights)


def test_equal_weights_take_turns() -> None:
    assert list(islice(mixed([1, 1, 2]), 8)) in ([2, 0, 1, 2, 2, 0, 1, 2], [2, 0, 2, 1] * 2)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> Job:
    """Two datasets of 50 and 20 rows, three to one."""
    monkeypatch.setattr(stream, "WINDOW_RECORDS", WINDOW)
    monkeypatch.setattr(prepare, "load_tokenizer", lambda job: tokenizer)
    monkeypatch.setattr(prepare, "check_vocabulary", lambda job, highest: None)
    return make(tmp_path)


def make(folder: Path, *, packing: bool = True, **changes: Any) -> Job:
    value = job_value(dataset__max_seq_length=128, dataset__streaming=True, dataset__packing=packing, **changes)
    for name, count in (("a", 50), ("b", 20)):
        rows = [{"instruction": f"{name}{i}", "output": "so " * (1 + i % 4) + str(i)} for i in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    first = value["datasets"][0]
    value["datasets"] = [first | {"path": "a.jsonl", "weight": 3.0}, first | {"path": "b.jsonl", "weight": 1.0}]
    (folder / "job.json").write_text(json.dumps(value))
    return read_job(folder / "job.json")


def ids(item: dict[str, Any]) -> list[list[int]]:
    return [row["input_ids"].tolist() for row in item.get("documents", [item])]


def question(tokenizer: Any, row: dict[str, Any]) -> str:
    return str(tokenizer.decode(row["input_ids"]).replace(" ", "").split("user\n")[1].split("<")[0])


def first(job: Job, tokenizer: Any, journal: Path, count: int, *, done: int = 0, rank: int = 0, ranks: int = 1) -> Any:
    found = items(Windows(job, tokenizer, rank=rank, ranks=ranks), Journal(journal), done)
    return [ids(item) for item in islice(found, count)]


@pytest.mark.parametrize("packing", [True, False])
def test_it_goes_on_anywhere_as_if_it_had_not_stopped(tmp_path: Path, job: Job, tokenizer: Any, packing: bool) -> None:
    job = make(tmp_path, packing=packing)
    whole = first(job, tokenizer, tmp_path / "j", 60)
    for done in (0, 1, 13, 40):
        assert first(job, tokenizer, tmp_path / "j", 60 - done, done=done) == whole[done:]
        assert first(job, tokenizer, tmp_path / f"lost-{done}", 60 - done, done=done) == whole[done:]


def test_what_is_known_of_windows_is_not_encoded_again(
    tmp_path: Path, job: Job, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first(job, tokenizer, tmp_path / "j", 60)
    counts = Journal(tmp_path / "j").counts()
    before = sum(counts[w] for w in range(3))
    made: list[int] = []
    original = Windows._items
    monkeypatch.setattr(Windows, "_items", lambda self, w, *rest: (made.append(w), original(self, w, *rest))[1])
    first(job, tokenizer, tmp_path / "j", 1, done=before + 1)
    assert made == [3]


def test_a_half_written_line_of_the_journal_is_no_count(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.add(0, 12)
    with (tmp_path / "j").open("a") as file:
        file.write("1 3")
    assert journal.counts() == {0: 12}


def test_ranks_share_the_records_and_repeat_none(tmp_path: Path, job: Job, tokenizer: Any) -> None:
    """Windows in turn: together they are what one rank alone has."""
    alone = dict(islice(Windows(job, tokenizer, rank=0, ranks=1).after(0), 6))
    shared = [dict(islice(Windows(job, tokenizer, rank=r, ranks=3).after(r), 2)) for r in range(3)]
    assert [sorted(s) for s in shared] == [[0, 3], [1, 4], [2, 5]]
    for window, found in (pair for s in shared for pair in s.items()):
        assert [ids(i) for i in found] == [ids(i) for i in alone[window]]


def test_a_window_has_the_datasets_shares_in_an_order_of_its_own(tmp_path: Path, job: Job, tokenizer: Any) -> None:
    job = make(tmp_path, packing=False)
    (_, found), (_, following) = islice(Windows(job, tokenizer, rank=0, ranks=1).after(0), 2)
    asked, later = ([question(tokenizer, item) for item in items] for items in (found, following))
    assert Counter(a[0] for a in asked) == {"a": 24, "b": 8}
    assert asked != sorted(asked) and len(set(asked)) == WINDOW
    assert later != asked


def test_bad_rows_end_it_by_name_or_are_left_out(tmp_path: Path, job: Job, tokenizer: Any) -> None:
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    lines[7] = json.dumps({"instruction": "a7", "output": 7})
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(RuntimeFailure, match=r"a.jsonl:8: output"):
        prepare.run(job)
    value = json.loads((tmp_path / "job.json").read_text())
    value["datasets"][0]["on_bad_row"] = "drop"
    (tmp_path / "job.json").write_text(json.dumps(value))
    kept = read_job(tmp_path / "job.json")
    _, found = next(Windows(kept, tokenizer, rank=0, ranks=1).after(0))
    assert sum(len(i["documents"]) for i in found) == WINDOW - 1


def rows_listed(path: Path) -> list[tuple[str, str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [(r["check"], r["file"], r["row"]) for r in csv.DictReader(file)]


def test_what_is_left_out_of_a_stream_is_listed_once(tmp_path: Path, job: Job, tokenizer: Any) -> None:
    """Also where a window is made again, because a run went on in the middle of it."""
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    lines[7], lines[40] = (
        json.dumps({"instruction": "a7", "output": 7}),
        json.dumps({"instruction": "mail kim@corp.org", "output": "so"}),
    )
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    value = json.loads((tmp_path / "job.json").read_text())
    value["datasets"][0]["on_bad_row"] = "quarantine"
    (tmp_path / "job.json").write_text(json.dumps(value))
    kept = read_job(tmp_path / "job.json")
    per_window = len(next(Windows(kept, tokenizer, rank=0, ranks=1).after(0))[1])
    for done, count in ((0, per_window + 1), (per_window + 1, 1)):
        listing = Listing(kept, rank=0, ranks=1)
        windows, journal = Windows(kept, tokenizer, rank=0, ranks=1), Journal(tmp_path / "j")
        list(islice(items(windows, journal, done, listing), count))
    bad, warned = ("type", "a.jsonl", "8"), ("personal-data", "a.jsonl", "41")
    assert rows_listed(kept.output / "data-check-0-of-1.csv") == [bad, warned]
    (line,) = (kept.output / "quarantine-0-of-1.jsonl").read_text().splitlines()
    assert json.loads(line)["row"] == 8 and json.loads(line)["content"] == {"instruction": "a7", "output": 7}


def test_preparing_a_stream_tells_what_is_wrong_with_its_beginning(
    tmp_path: Path, job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    lines[7] = lines[3]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    prepare.run(job)
    assert "warning: 1 duplicate" in capsys.readouterr().out
    assert ("duplicate", "a.jsonl", "8") in rows_listed(job.output / "data-check.csv")


def test_preparing_a_stream_looks_at_its_beginning(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    prepare.run(job)
    assert "rows are streamed" in capsys.readouterr().out
    assert not list(job.output.rglob("*.arrow"))
    with pytest.raises(RuntimeFailure, match="cannot be streamed"):
        prepare.run(make(job.base, training__objective="dpo"))


def test_a_dataset_without_records_ends_it(tmp_path: Path, job: Job, tokenizer: Any) -> None:
    (tmp_path / "b.jsonl").write_text("")
    with pytest.raises(RuntimeFailure, match="has no record"):
        next(Windows(job, tokenizer, rank=0, ranks=1).after(0))
