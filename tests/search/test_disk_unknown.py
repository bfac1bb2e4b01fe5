"""What no plan can count of the disk is said with its rule, and nothing is said of what is counted or leaves nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from asking import facts, request
from axoc.ir.facts import DataFacts
from axoc.ir.plan import Plan
from axoc.review.explain import as_text, explanation
from axoc.search.choose import search
from axoc.search.disk_unknown import JUMPED_IN, READ_THROUGH, disk_warnings, fetched

NOTHING = DataFacts(path=None)


def told(path: str, *, streaming: bool = False, known: DataFacts = NOTHING) -> str | None:
    made = request("Qwen/Qwen2.5-0.5B", dataset__path=path, dataset__streaming=streaming)
    return fetched(made.datasets[0], known)


def test_a_dataset_of_the_hub_is_kept_twice_and_not_at_all_where_it_is_streamed() -> None:
    found = told("tatsu-lab/alpaca")
    assert found is not None and "HF_HOME" in found and "tatsu-lab/alpaca" in found
    assert told("tatsu-lab/alpaca", streaming=True) is None
    assert told("data/alpaca", known=DataFacts(path="data/alpaca", rows=1, bytes=1)) is None, (
        "a folder that was counted"
    )


@pytest.mark.parametrize(
    "path", ["data/train.jsonl", "./alpaca", "/data/a", "a/b/c", "data/*.json", "postgres://h/db", "pydoc:stdlib"]
)
def test_what_lies_here_or_on_a_database_server_leaves_nothing(path: str) -> None:
    assert told(path) is None


@pytest.mark.parametrize(
    ("path", "copied"),
    [
        ("https://h/x.parquet", True),
        ("https://h/x.zip", True),
        ("https://h/x.jsonl", False),
        ("https://h/x.jsonl.gz", False),
        ("s3://b/x.parquet", False),
        ("s3://b/x.parquet.zst", True),
        ("s3://b/folder/", True),
        ("gs://b/part-*.jsonl", False),
    ],
)
def test_files_are_copied_where_their_reader_jumps_and_their_store_cannot(path: str, copied: bool) -> None:
    found = told(path)
    assert (found is not None) == copied
    assert found is None or "TMPDIR" in found


def test_rows_that_are_not_counted_are_no_silent_zero() -> None:
    made = request("Qwen/Qwen2.5-0.5B")
    counted, uncounted = (replace(NOTHING, path="data/train.jsonl", rows=rows) for rows in (10, None))
    assert disk_warnings(made, (counted,)) == ()
    (found,) = disk_warnings(made, (uncounted,))
    assert "prepared rows are not counted" in found and "data/train.jsonl" in found and "8 bytes a token" in found


def test_the_plan_warns_and_explain_says_it_below_the_ledger() -> None:
    from axoc.emit.plan_json import plan_dict

    made = request("Qwen/Qwen2.5-0.5B", dataset__path="tatsu-lab/alpaca")
    found = search(made, facts(made, "h100-sxm-80gb"))
    assert isinstance(found, Plan)
    assert any("tatsu-lab/alpaca" in w and w.startswith("disk: ") for w in found.warnings)
    json = plan_dict(found)
    assert "beside it: where tatsu-lab/alpaca is fetched" in as_text(json)
    assert len(explanation(json)["disk"]["unknown"]) == 1


def test_every_reader_of_the_runtime_is_known_to_read_through_or_to_jump() -> None:
    from axoc_runtime.ingest.registry import readers

    suffixes = {s for r in readers() for s in r.suffixes}
    assert suffixes <= {*READ_THROUGH, *JUMPED_IN}
