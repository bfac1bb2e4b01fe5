"""What is found in rows, row by row and in all of them together, and how it is told."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from axoc_runtime.ingest.base import BadRow, Conversation, Document, Pictured, Record
from axoc_runtime.ingest.checks import content, secrets
from axoc_runtime.ingest.checks.facts import fact_of
from axoc_runtime.ingest.checks.finding import ERROR, LEFT_OUT, WARNING, Finding, of_error, of_row
from axoc_runtime.ingest.checks.ledger import Ledger
from axoc_runtime.ingest.checks.looked_up import looked_up
from axoc_runtime.ingest.checks.texts import texts
from axoc_runtime.ingest.checks.whole import Whole, template_findings
from axoc_runtime.ingest.examine import Wanted, examine
from axoc_runtime.ingest.registry import schema_of
from axoc_runtime.ingest.sources import records
from hypothesis import given
from hypothesis import strategies as st

from runtime import format_rows
from runtime.jobs import BASE
from runtime.test_formats import DATASET, Here

WANTED = Wanted(objective="sft", accepts=(Conversation, Document), wants="conversations")
SOUND = [
    {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]} for q, a, _ in format_rows.GIVEN
]


def found(row: dict[str, Any], **changes: Any) -> list[tuple[str, str, str | None]]:
    """(level, check, column) of what is wrong with a row."""
    schema = schema_of(SOUND[0], "here:1", WANTED.accepts)
    record = Record(place="here:1", row=row, file="here", number=1, offset=0)
    examined = examine(record, schema, replace(DATASET, **changes), WANTED)
    assert (examined.example is None) == any(f.level != WARNING for f in examined.findings)
    assert all(f.fix and f.sample and f.place == "here:1" for f in examined.findings)
    return [(f.level, f.check, f.column) for f in examined.findings]


def spoken(*said: tuple[str, str]) -> dict[str, Any]:
    return {"conversations": [{"from": who, "value": what} for who, what in said]}


@pytest.mark.parametrize("row", SOUND)
def test_sound_rows_have_no_findings(row: dict[str, Any]) -> None:
    assert found(row) == []


WRONG: list[tuple[dict[str, Any], tuple[str, str, str | None]]] = [
    ({}, (ERROR, "empty", None)),
    ({"conversations": None, "id": ""}, (ERROR, "empty", None)),
    ({"conversation": SOUND[0]["conversations"]}, (ERROR, "missing-column", "conversations")),
    ({"conversations": 7}, (ERROR, "type", "conversations")),
    (spoken(("human", "q"), ("gpt", "\ud800")), (ERROR, "encoding", "conversations[1].value")),
    ({**SOUND[0], "image": "cat.png"}, (WARNING, "image", "image")),
    ({**SOUND[0], "\ud800": 1}, (ERROR, "encoding", "(names of columns)")),
    (spoken(("human", "caf\u00c3\u00a9?"), ("gpt", "a")), (WARNING, "encoding", "conversations[0].value")),
    (spoken(("human", "q\x00"), ("gpt", "a")), (WARNING, "encoding", "conversations[0].value")),
    (spoken(("human", "lost \ufffd"), ("gpt", "a")), (WARNING, "encoding", "conversations[0].value")),
    (spoken(("human", "q"), ("gpt", "a<|im_end|>")), (WARNING, "template-markup", "conversations[1].value")),
    (spoken(("human", "### Instruction: x"), ("gpt", "a")), (WARNING, "template-markup", "conversations[0].value")),
    (spoken(("human", "q"), ("human", "r"), ("gpt", "a")), (WARNING, "role-order", "conversations")),
    (spoken(("human", "write to kim@corp.io"), ("gpt", "a")), (WARNING, "personal-data", "conversations[0].value")),
    (spoken(("human", "q"), ("gpt", "AKIA" + "Q" * 16)), (WARNING, "secret", "conversations[1].value")),
    (spoken(("human", "q"), ("function_call", '{"name": "f"}')), (LEFT_OUT, "tool-calls-off", "conversations")),
]


@pytest.mark.parametrize(("row", "expected"), WRONG)
def test_what_is_wrong_is_found_where_it_is(row: dict[str, Any], expected: tuple[str, str, str | None]) -> None:
    assert found(row) == [expected]


@pytest.mark.parametrize(
    ("column", "shown"),
    [("turns[1].text", "b"), ("turns[1]", "{'text': 'b'}"), ("turns[9].text", "[{'text': 'a'}, {'text': 'b'}]"),
     ("gone", "{'turns': [{'text': 'a'}, {'text': 'b'}]}"), (None, "{'turns': [{'text': 'a'}, {'text': 'b'}]}")],
)  # fmt: skip
def test_a_sample_is_what_stands_where_the_finding_is(column: str | None, shown: str) -> None:
    record = Record(place="here:1", row={"turns": [{"text": "a"}, {"text": "b"}]})
    assert of_error(BadRow("is bad", column), record).sample == shown
    assert of_row(WARNING, "x", record, "is bad", column=column).sample == shown
    assert of_row(WARNING, "x", record, "is bad", column=column, sample="").sample == ""


def test_a_row_too_deep_to_be_shown_is_told_all_the_same() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert of_error(BadRow("is bad", "x"), Record(place="p", row={"x": deep})).sample == ""


def test_tool_calls_are_used_where_they_are_wanted() -> None:
    assert found(spoken(("human", "q"), ("function_call", '{"name": "f"}')), support_tool_calls=True) == []


def test_a_schema_that_a_row_surprises_is_a_finding_and_no_traceback() -> None:
    class Surprised(type(schema_of(SOUND[0], "here:1", WANTED.accepts))):  # type: ignore[misc]
        def convert(self, row: Any) -> Any:
            return row["conversations"][99]

    examined = examine(Record(place="p", row=SOUND[0]), Surprised(), DATASET, WANTED)
    (finding,) = examined.findings
    assert finding.check == "type" and "IndexError" in finding.message


SECRETS = {
    "a private key": "-----BEGIN RSA PRIVATE KEY-----",
    "a GitHub token": "ghp_" + "a1" * 18,
    "a Hugging Face token": "hf_" + "Ab" * 16,
    "an API key": "sk-proj-" + "Ab1" * 10,
    "a JSON web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abcdefghijkl",
    "a password in a URL": "postgres://app:hunter22@db.internal/x",
    "an e-mail address": "kim.lee@corp.co.uk",
    "a telephone number": "+49 (89) 1234 5678",
    "a US social security number": "123-45-6789",
    "a card number": "4111 1111 1111 1111",
    "an account number (IBAN)": "DE89 3704 0044 0532 0130 00",
}
HARMLESS = [
    "4111 1111 1111 1112", "1.2345678901234567890", "DE00 3704 0044 0532 0130 00", "a@b", "me@example.com",
    "sk-learn and ghp_short", r"(\w+)@[a-z]+\.com", "'+@exmpl.com", "call f(x)+12345", "2024-01-02", "0000000000000000",
]  # fmt: skip


@pytest.mark.parametrize("what", SECRETS)
def test_secrets_are_found_and_not_told_again(what: str) -> None:
    ((_, named, shown),) = secrets.found(f"see {SECRETS[what]}, please")
    assert named == what
    assert SECRETS[what] not in shown and SECRETS[what][-6:] not in shown


@pytest.mark.parametrize("what", SECRETS)
def test_samples_of_other_findings_hide_them_too(what: str) -> None:
    row = {"text": f"{'x' * 100} see {SECRETS[what]}, please"}
    shown = of_error(BadRow("is bad", "text"), Record(place="p", row=row)).sample
    assert "see " in shown and SECRETS[what][4:16] not in shown


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_a_little_like_one_is_left_alone(text: str) -> None:
    assert list(secrets.found(text)) == [] and secrets.hidden(text) == text


PIECES = (
    "4111",
    "1111",
    "12",
    "345",
    "6789",
    "0",
    "-",
    " ",
    "+",
    "DE89",
    "3704",
    "GB",
    "x",
    ".",
    "(",
    ")",
    "é",
    "AKIA",
)


@given(parts=st.lists(st.sampled_from(PIECES), max_size=16))
def test_the_outline_hides_no_match(parts: list[str]) -> None:
    """A text is looked at closely only where its outline says that there may be something."""
    text, outline = "".join(parts), secrets.outlined("".join(parts))
    assert all(shape.outline in outline for shape in secrets.SHAPES if shape.pattern.search(text))
    assert secrets.CARD_OUTLINE in outline.translate(None, b" -") or not secrets.CARD.search(text)
    assert secrets.IBAN_OUTLINE in outline or not secrets.IBAN.search(text)


BROKEN = [
    *PIECES,
    "### Response:",
    "<|im_end|>",
    "\x07",
    "\ufffd",
    "\ud800",
    "Ã©",
    "â€™",
    "gh",
    "p_",
    "a" * 36,
    "kim@corp.io",
    "://u:pw1@h",
]


@given(parts=st.lists(st.sampled_from(BROKEN), max_size=8), cut=st.integers(0, 8))
def test_one_look_at_all_text_hides_no_finding(parts: list[str], cut: int) -> None:
    """A row is looked at column by column only where all its text together says that there may be something."""
    row = {"a": "".join(parts[:cut]), "b": [{"c": "".join(parts[cut:]), "".join(parts[:1]): 1}]}
    record = Record(place="x:1", row=row)
    each = [f for column, text in texts(row) for f in content._of_text(record, column, text)]
    assert list(content.content_findings(record)) == each


def whole(*groups: list[dict[str, Any]], **changes: Any) -> list[Finding]:
    """Rows by dataset, each in a file of its own."""
    datasets = [replace(DATASET, path=f"{i}.jsonl", **changes) for i in range(len(groups))]
    seen = Whole(datasets, "sft")
    for index, rows in enumerate(groups):
        for number, row in enumerate(rows, start=1):
            place = f"{index}.jsonl:{number}"
            record = Record(place=place, row=row, file=f"{index}.jsonl", number=number, offset=10 * number)
            example = schema_of(row, place, WANTED.accepts).convert(row)
            seen.see(index, fact_of(record, example, 42), cut=number <= 2)
    return list(seen.findings())


def test_copies_are_told_with_what_they_are_copies_of() -> None:
    found = whole([*SOUND[:3], SOUND[1]], [SOUND[2]])
    assert [(f.check, f.place, f.offset) for f in found] == [
        ("duplicate", "0.jsonl:4", 40),
        ("duplicate", "1.jsonl:1", 10),
    ]
    assert "same row as 0.jsonl:2" in found[0].message and "0.jsonl:3" in found[1].message


@pytest.mark.parametrize(("name", "indent"), [("a.jsonl", None), ("a.json", None), ("a.json", 2), ("a.jsonl.gz", None)])
def test_copies_are_shown_where_they_can_be_looked_up(tmp_path: Path, name: str, indent: int | None) -> None:
    twice = [SOUND[0], SOUND[1], SOUND[0]]
    lines = "\n".join(json.dumps(row) for row in twice)
    content = (json.dumps(twice, indent=indent) if name.endswith("json") else lines).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    dataset = replace(DATASET, path=name)
    seen = Whole([dataset], "sft")
    for record in records(Here(tmp_path), dataset):  # type: ignore[arg-type]
        seen.see(0, fact_of(record, schema_of(record.row, "", WANTED.accepts).convert(record.row), 42))
    gone = replace(DATASET, path="gone.jsonl")
    (found,) = looked_up(Here(tmp_path), [gone, dataset], seen.findings())  # type: ignore[arg-type]
    shown = "" if name.endswith("gz") else '{ "conversations": [' if indent else '{"conversations": ['
    assert found.check == "duplicate" and found.sample.startswith(shown) and bool(found.sample) == bool(shown)
    assert len(found.sample) <= 121


def test_a_question_on_both_sides_of_the_split_is_told() -> None:
    """The same question in other spaces and case, with another answer: no copy, so that the split may part them."""
    twins = [spoken(("human", f"  {q.upper()} "), ("gpt", w)) for q, _, w in format_rows.GIVEN]
    found = [f for f in whole([*SOUND, *twins], validation_split=0.3) if f.check == "leakage"]
    assert found and all(f.level == WARNING for f in found)
    assert whole([*SOUND, *twins], validation_split=0.0) == []
    for finding in found:
        other = finding.message.split("same as ")[1].split(",")[0]
        numbers = {int(p.rpartition(":")[2]) for p in (finding.place, other)}
        assert max(numbers) - min(numbers) == len(SOUND)


def test_shares_that_speak_for_all_rows() -> None:
    same = [spoken(("human", q), ("gpt", "yes")) for q, _, _ in format_rows.GIVEN] + SOUND[:1]
    assert {f.check for f in whole(same)} == {"label-imbalance", "too-long"}
    mixed = [{**row, "system": "Be brief."} if i % 2 else row for i, row in enumerate(SOUND)]
    assert {f.check for f in whole(mixed)} == {"template-drift", "too-long"}
    assert {f.check for f in whole(mixed, system_prompt="Be brief.")} == {"too-long"}


def test_templates_that_drift(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(template_findings(tokenizer, "m", plain=False)) == []
    monkeypatch.setattr(tokenizer, "chat_template", "{{ strftime_now('%d %b %Y') }}")
    assert len(list(template_findings(tokenizer, "m", plain=True))) == 2


def test_images_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(format_rows.picture())
    (tmp_path / "cut.png").write_bytes(format_rows.picture()[:20])
    row = format_rows.other_rows("q", "a", "w")["vision_chat"]
    wanted = replace(WANTED, accepts=(Pictured,))
    schema = schema_of(row, "here:1", wanted.accepts)

    def problems(image: Any, wanted: Wanted = wanted) -> list[str]:
        record = Record(place="here:1", row={**row, "images": [image]})
        return [f.check for f in examine(record, schema, DATASET, wanted, tmp_path).findings]

    assert [problems(i) for i in (row["images"][0], "red.png", format_rows.picture())] == [[], [], []]
    for broken in ("cut.png", "gone.png", "data:image/png;base64,!!", b"no image", 7):
        assert problems(broken) == ["image"], broken
    assert problems("red.png", WANTED) == ["objective"]


def test_the_report_is_csv_that_no_spreadsheet_runs(tmp_path: Path) -> None:
    record = Record(place="a.jsonl:3", row={"x": "=1+1"}, file="a.jsonl", number=3, offset=77)
    with Ledger(tmp_path / "deep" / "report.csv") as ledger:
        ledger.add(of_row(WARNING, "secret", record, "holds\nit", column="x", sample="=cmd|' /C calc'!A0", fix="-x"))
        ledger.unused(record, (of_error(BadRow("is bad \ud800", "x", check="empty"), record),), keep=False)
        assert not (tmp_path / "deep" / "report.csv").exists()
    rows = list(csv.DictReader((tmp_path / "deep" / "report.csv").open(encoding="utf-8", newline="")))
    assert [(r["level"], r["file"], r["row"], r["byte"], r["column"]) for r in rows] == [
        ("warning", "a.jsonl", "3", "77", "x"),
        ("error", "a.jsonl", "3", "77", "x"),
    ]
    assert rows[0]["sample"].startswith("'=") and rows[0]["fix"] == "'-x"
    assert ledger.total(ERROR) == ledger.rows_listed == 1


def test_the_quarantine_keeps_rows_with_their_reasons(tmp_path: Path) -> None:
    kept = Record(place="a:1", row={"x": 1}, file="a", number=1)
    broken = Record(place="a:2", row={}, file="a", number=2, problem=BadRow("not JSON", check="malformed"), raw='{"te')
    with Ledger(tmp_path / "r.csv", tmp_path / "q.jsonl") as ledger:
        for record in (kept, broken):
            ledger.unused(record, (of_error(record.problem or BadRow("is bad", "x"), record),), keep=True)
    lines = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert lines[0]["content"] == {"x": 1} and lines[0]["problems"] == ["a:1: x is bad"]
    assert lines[1]["raw"] == '{"te' and lines[1]["row"] == 2
    with Ledger(tmp_path / "r.csv", tmp_path / "q.jsonl"):
        pass
    assert not (tmp_path / "q.jsonl").exists(), "what an earlier run kept is not this one's"


def test_a_data_job_is_read_strictly(tmp_path: Path) -> None:
    from axoc_runtime.datacheck.job import read_data_job
    from axoc_runtime.errors import RuntimeFailure

    value = {
        "schema_version": 1, "base_dir": "..",
        "model": {"id": None, "revision": None, "trust_remote_code": False, "tokenizer": BASE["model"]["tokenizer"]},
        "datasets": BASE["datasets"], "training": {"objective": "sft", "grpo": None}, "output_dir": "out",
        "logging_level": "INFO", "plugins": [],
    }  # fmt: skip
    (tmp_path / "data.json").write_text(json.dumps(value))
    assert read_data_job(tmp_path / "data.json").output == tmp_path.parent / "out"
    (tmp_path / "data.json").write_text(json.dumps(value | {"more": 1, "schema_version": 9}))
    with pytest.raises(RuntimeFailure, match=r"data\.more"):
        read_data_job(tmp_path / "data.json")
