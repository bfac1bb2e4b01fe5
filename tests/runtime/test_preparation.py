"""Preparing: the same rows by any number of processes, stopped at any moment, and once only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from axoc_runtime import prepare
from axoc_runtime.datacheck.check import Check
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.ingest.checks.ledger import Ledger
from axoc_runtime.preparation import digest, shards, whole, work
from axoc_runtime.preparation.digest import Memory

from runtime.jobs import make_job, write_job

ROOT = Path(__file__).resolve().parents[2]
UNIT = 16


def write_rows(folder: Path, count: int, name: str = "data.jsonl") -> None:
    rows = [{"instruction": f"q{i}", "output": "answer " * (1 + i % 5) + str(i)} for i in range(count)]
    (folder / name).write_text("".join(json.dumps(r) + "\n" for r in rows))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> Path:
    """Of 100 rows in seven units; the tokenizer is one token a character."""
    monkeypatch.setattr(prepare, "load_tokenizer", lambda job: tokenizer)
    monkeypatch.setattr(prepare, "check_vocabulary", lambda job, highest: None)
    monkeypatch.setattr(work, "UNIT_RECORDS", UNIT)
    write_rows(tmp_path, 100)
    return tmp_path


def prepared(folder: Path, **changes: Any) -> Any:
    job = make_job(folder, **{"dataset__max_seq_length": 128, **changes})
    prepare.run(job)
    return job


def told(rows: Any) -> list[tuple[list[int], list[int]]]:
    return [(list(r["input_ids"]), list(r["labels"])) for r in rows]


def test_packs_hold_the_rows_that_are_trained_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = prepared(folder, dataset__packing=True)
    rows, held_out = prepare.load_prepared(job)
    packs, held_packs = prepare.load_batches(job)
    assert (len(rows), len(held_out)) == (90, 10)
    assert len(packs) < 90 and [told(p["documents"]) for p in (packs[0], packs[len(packs) - 1])]
    inside = [d for i in range(len(packs)) for d in packs[i]["documents"]]
    assert told(inside) == told(rows)
    assert told(d for i in range(len(held_packs)) for d in held_packs[i]["documents"]) == told(held_out)
    assert all(sum(len(d["input_ids"]) for d in packs[i]["documents"]) <= 128 for i in range(len(packs)))
    said = capsys.readouterr().out
    assert f"{len(packs)} packs of 128 tokens" in said and f"only {len(packs)} packs to train on" in said


def test_a_row_that_is_split_is_one_row_in_the_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `axoc data check` counts them, whatever becomes of long rows; pieces are told beside them."""
    long = {"instruction": "q", "output": "answer " * 40}
    (folder / "data.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in [{"instruction": "q", "output": "a"}] * 8 + [long] * 2)
    )
    for how, made in (("split", 14), ("right", 10), ("left", 10)):
        job = prepared(folder, dataset__truncation=how)
        (row,) = json.loads((prepare.prepared_folder(job) / whole.REPORT).read_text())["datasets"]
        assert [row[k] for k in ("rows", "used", "kept", "cut")] == [10, 10, made, 2]
        account = checked(job)
        assert [account.rows, account.used, account.made, account.cut] == [10, 10, made, 2]
        said = capsys.readouterr().out
        assert f"2 {'split' if how == 'split' else 'cut'} (20.0% of the rows used)" in said
        assert ("10 used as 14" in said) == (how == "split")


@pytest.mark.parametrize("content", ["\n", "[]", '[{"instruction": "", "output": ""}]'])
def test_data_that_leave_nothing_to_train_on_are_an_error_before_the_launch_too(folder: Path, content: str) -> None:
    name = "data.json" if content.strip() else "data.jsonl"
    (folder / name).write_text(content)
    job = make_job(folder, dataset__path=name, dataset__type="alpaca")
    with Ledger(job.output / "check.csv") as ledger:
        Check(job, prepare.load_tokenizer(job), ledger).run()
    assert ledger.counts["error", "empty"] and ("holds no row" in (job.output / "check.csv").read_text()) == (
        len(content) < 3
    )


def checked(job: Any) -> Any:
    with Ledger(job.output / "check.csv") as ledger:
        check = Check(job, prepare.load_tokenizer(job), ledger)
        check.run()
    return check.accounts[0]


def test_some_of_the_packs_are_those_packs(folder: Path) -> None:
    packs, _ = prepare.load_batches(prepared(folder, dataset__packing=True))
    some = packs.select([3, 0])
    assert [told(some[i]["documents"]) for i in range(len(some))] == [told(packs[i]["documents"]) for i in (3, 0)]


def test_a_sample_is_of_so_many_rows_packed_or_not(folder: Path) -> None:
    from axoc_runtime.objectives.planned import sample

    packs, _ = prepare.load_batches(prepared(folder, dataset__packing=True))
    rows, _ = prepare.load_batches(prepared(folder))
    held = sum(len(p["documents"]) for p in (sample(packs, 30, 1)[i] for i in range(len(sample(packs, 30, 1)))))
    assert 30 <= held < 60 < len(rows) == 90
    drawn = [sample(rows, 30, seed) for seed in (1, 1, 2)]
    assert told(drawn[0]) == told(drawn[1]) != told(drawn[2]) and len(drawn[0]) == 30


def test_rows_are_those_without_packing(folder: Path) -> None:
    """Only their order is another."""
    plain, _ = prepare.load_batches(prepared(folder))
    packed, _ = prepare.load_prepared(prepared(folder, dataset__packing=True))
    assert sorted(told(plain)) == sorted(told(packed))
    assert plain.sort("length", reverse=True)[0]["length"] == max(r["length"] for r in plain)


def test_some_of_them_are_selected_as_of_a_dataset(folder: Path) -> None:
    rows, _ = prepare.load_batches(prepared(folder))
    packs, _ = prepare.load_batches(prepared(folder, dataset__packing=True))
    assert told(rows.select([5, 2])) == told([rows[5], rows[2]]) and len(rows.select([5, 2])) == 2
    assert [told(p["documents"]) for p in packs.select([7, 1])] == [told(packs[i]["documents"]) for i in (7, 1)]


def test_objectives_that_look_at_single_rows_are_not_packed(folder: Path) -> None:
    with pytest.raises(RuntimeFailure, match="cannot be packed"):
        prepared(folder, dataset__packing=True, training__objective="dpo")


def test_lengths_are_there_for_the_planner(folder: Path) -> None:
    job = prepared(folder)
    found = json.loads((prepare.prepared_folder(job) / whole.LENGTHS).read_text())
    rows, held_out = prepare.load_prepared(job)
    assert found["rows"] == 100 and found["tokens"] == sum(r["length"] for r in (*rows, *held_out))


def test_a_second_start_tokenizes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(folder)
    monkeypatch.setattr(prepare, "load_tokenizer", lambda job: pytest.fail("the tokenizer was loaded again"))
    prepared(folder)
    with pytest.raises(pytest.fail.Exception):
        prepared(folder, dataset__max_seq_length=120)


def test_any_number_of_processes_makes_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "processes", lambda: 1)
    alone = prepared(folder, output_dir="one")
    monkeypatch.setattr(prepare, "processes", lambda: 3)
    together = prepared(folder, output_dir="three")
    one, three = prepare.prepared_folder(alone), prepare.prepared_folder(together)
    names = sorted(p.name for p in one.iterdir())
    assert names == sorted(p.name for p in three.iterdir()) and len([n for n in names if n.endswith(".arrow")]) == 7
    assert all((one / n).read_bytes() == (three / n).read_bytes() for n in names)


def test_shards_that_are_there_are_kept_and_half_written_ones_are_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a run leaves them that is stopped in the middle."""
    monkeypatch.setattr(prepare, "processes", lambda: 1)
    job = prepared(folder)
    made = prepare.prepared_folder(job)
    before = {p.name: p.read_bytes() for p in made.iterdir()}
    for name in (whole.REPORT, "shard-000002.arrow", "shard-000006.arrow"):
        (made / name).unlink()
    (made / ".shard-000002.arrow.99").write_bytes(before["shard-000002.arrow"][:100])
    done: list[int] = []
    original = prepare.write_unit
    monkeypatch.setattr(prepare, "write_unit", lambda *a: (done.append(a[-1].number), original(*a))[1])
    prepare.run(job)
    assert done == [2, 6]
    assert {p.name: p.read_bytes() for p in made.iterdir()} == before


def test_bad_rows_are_all_named_whatever_process_met_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "processes", lambda: 2)
    lines = (folder / "data.jsonl").read_text().splitlines()
    for bad in (3, 40, 90):
        lines[bad] = json.dumps({"instruction": f"q{bad}", "output": 7})
    (folder / "data.jsonl").write_text("\n".join(lines))
    with pytest.raises(RuntimeFailure, match="3 rows cannot be used") as caught:
        prepared(folder)
    assert all(f"data.jsonl:{bad + 1}: output" in str(caught.value) for bad in (3, 40, 90))
    job = prepared(folder, dataset__on_bad_row="quarantine")
    assert len(prepare.load_prepared(job)[0]) + len(prepare.load_prepared(job)[1]) == 97
    kept = [json.loads(line) for line in (job.output / prepare.QUARANTINE).read_text().splitlines()]
    assert [k["content"]["instruction"] for k in kept] == ["q3", "q40", "q90"]


def test_a_worker_that_is_killed_ends_in_a_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "processes", lambda: 2)
    monkeypatch.setattr(prepare, "write_unit", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(RuntimeFailure, match="was killed"):
        prepared(folder)


def test_a_file_is_read_again_only_where_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text("a")
    reads: list[Any] = []
    original = digest.hashlib.file_digest
    monkeypatch.setattr(digest.hashlib, "file_digest", lambda *a: (reads.append(a), original(*a))[1])
    monkeypatch.setattr(digest, "SETTLED_NANOSECONDS", -(10**10))

    def digested() -> str:
        memory = Memory(tmp_path / "digests.json")
        found = memory.digest(file)
        memory.keep()
        return found

    first = digested()
    assert digested() == first and len(reads) == 1
    file.write_text("b")
    assert digested() != first and len(reads) == 2


def test_a_file_that_was_just_written_is_not_trusted_yet(tmp_path: Path) -> None:
    """Written twice within a tick of its clock, a file may look the same."""
    file = tmp_path / "data.jsonl"
    file.write_text("a")
    memory = Memory(tmp_path / "digests.json")
    memory.digest(file)
    memory.keep()
    assert not memory.used


SCRIPT = """
import sys, time
from pathlib import Path
sys.path[:0] = [{tests!r}, {runtime!r}]
from axoc_runtime import prepare
from axoc_runtime.job import read_job
from axoc_runtime.preparation import work
from runtime.conftest import make_tokenizer
prepare.load_tokenizer = lambda job: make_tokenizer()
prepare.check_vocabulary = lambda job, highest: None
prepare.processes = lambda: 2
work.UNIT_RECORDS = {unit}
slow = work.make
def make(*a):
    time.sleep({pause})
    return slow(*a)
work.make = make
prepare.run(read_job(Path(sys.argv[1])))
"""


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_and_leaves_nobody_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real SIGKILL to the process that prepares, with workers of its own."""
    job = make_job(folder, dataset__max_seq_length=128)
    script = folder / "prepare.py"
    paths = {"tests": str(ROOT / "tests"), "runtime": str(ROOT / "runtime")}
    script.write_text(SCRIPT.format(**paths, unit=UNIT, pause=0.3))
    command = [sys.executable, str(script), str(folder / "job.json")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    made = prepare.prepared_folder(job)
    deadline = time.monotonic() + 120
    while len(list(made.glob("shard-*.arrow"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(workers) >= 2
    assert ends_within(5, workers), "workers outlive the process that started them"
    finished = {p.name: p.stat().st_mtime_ns for p in made.glob("shard-*.arrow")}
    assert 3 <= len(finished) < 7 and not whole.is_whole(made)
    assert all(shards.batch_of(made / n).num_rows for n in finished), "what has its name is whole"
    prepare.run(job)
    assert {n: (made / n).stat().st_mtime_ns for n in finished} == finished, "finished shards were made again"
    assert sum(len(part) for part in prepare.load_prepared(job)) == 100


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ends_within(seconds: float, pids: list[int]) -> bool:
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{p}").exists() and "Z (" not in state(p) for p in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text().split("State:")[1].split("\n")[0].strip()
    except OSError:
        return "Z (gone)"


def test_torch_is_not_imported_to_prepare(tmp_path: Path, tokenizer: Any) -> None:
    """It takes longer than some thousands of rows, and its memory is each process's."""
    write_rows(tmp_path, 20)
    tokenizer.save_pretrained(tmp_path / "model")
    job = write_job(tmp_path, model__id=str(tmp_path / "model"), dataset__max_seq_length=128)
    script = (
        "import sys; from axoc_runtime import __main__ as entry; code = entry.main(sys.argv[1:]); print(*sys.modules)"
    )
    command = [sys.executable, "-c", f"{script}; sys.exit(code)", "prepare", str(job)]
    done = subprocess.run(command, cwd=ROOT / "runtime", capture_output=True, text=True, check=True)
    modules = done.stdout.splitlines()[-1].split()
    assert "transformers" in modules and "torch" not in modules
    assert "20 rows read, 20 used" in done.stdout and not done.stderr
