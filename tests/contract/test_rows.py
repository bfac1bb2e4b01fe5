"""The compiler counts as many rows as the runtime reads, damaged ones too: steps, time and cost rest on the number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from axoc.facts.rows import count_rows
from axoc_runtime.ingest.sources import records
from runtime.jobs import make_job

ROWS = [{"question": f"{i}?", "answer": "a\nb"} for i in range(5)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
FILES: dict[str, str | bytes] = {
    "a.jsonl": LINES,
    "blank.jsonl": "\ufeff" + LINES.replace("\n", "\r\n\r\n"),
    "damaged.jsonl": '{"question":\n' + LINES + "[1]\n",
    "numbers.jsonl": "[1, 2]\n",
    "cut.jsonl": json.dumps(ROWS)[:-9],
    "one.jsonl": json.dumps(ROWS[0]),
    "list.jsonl": json.dumps(ROWS),
    "pretty.jsonl": json.dumps(ROWS, indent=2),
    "bracket.jsonl": "[\n" + LINES,
    "a.json": json.dumps(ROWS, indent=1),
    "bom.json": "\ufeff" + json.dumps(ROWS),
    "lines.json": "\ufeff" + LINES,
    "a.csv": 'question,answer\n1,"two\nlines"\n\n3\n',
    "latin.csv": b"question,answer\n1,\xe9\n2,b\n",
    "a.tsv": "question\tanswer\n1\t2\n",
}


@pytest.mark.parametrize("name", FILES)
def test_both_count_the_same(tmp_path: Path, name: str) -> None:
    content = FILES[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    job = make_job(tmp_path, dataset__path=name)
    assert count_rows(tmp_path / name) == len(list(records(job, job.datasets[0])))
