"""What an editor makes of the schema: completions, help and errors of the YAML language server of VS Code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axoc.spec.fields import PARTS
from axoc.spec.schema import json_schema
from browser import node_package
from spec.language_server import LanguageServer

pytestmark = pytest.mark.slow
HEAD = "# yaml-language-server: $schema=spec.schema.json\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageServer]:
    folder = tmp_path_factory.mktemp("editor")
    (folder / "spec.schema.json").write_text(json_schema())
    with LanguageServer(node_package(folder, "yaml-language-server"), folder) as running:
        yield running


def labels(server: LanguageServer, line: int, column: int) -> set[str]:
    return {item["label"].strip('"') for item in server.completions(line, column)}


@pytest.mark.parametrize("part", ["", "model", "training", "distributed", "policy", "samples", "adapter", "dataset"])
def test_every_key_of_a_part_is_offered(server: LanguageServer, part: str) -> None:
    text, column = (f"{HEAD}{part}:\n  \n", 2) if part else (f"{HEAD}\n", 0)
    server.open(text)
    offered = labels(server, 2 if part else 1, column)
    assert set(PARTS[part].model_fields) - {"version"} <= offered, set(PARTS[part].model_fields) - offered


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("distributed: {type: }", {"auto", "ddp", "fsdp", "zero1", "zero2", "zero3"}),
        ("model: {dtype: }", {"bfloat16", "float16", "float32"}),
        ("model: {trust_remote_code: }", {"true", "false"}),
    ],
)
def test_words_are_offered(server: LanguageServer, line: str, words: set[str]) -> None:
    server.open(f"{HEAD}{line}\n")
    assert words <= labels(server, 1, line.index("}"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("dataset: {max_seq_length: 1}", ("Tokens in a row", "tokens", "2048")),
        ("policy: {max_cost_usd: 1}", ("Most dollars", "US dollars")),
        ("distributed: {memory_budget_per_gpu_gb: 1}", ("GiB", "80")),
    ],
)
def test_help_has_description_unit_and_examples(server: LanguageServer, line: str, said: tuple[str, ...]) -> None:
    server.open(f"{HEAD}{line}\n")
    shown = server.hover(1, line.index("{") + 3).replace("&nbsp;", " ").replace("\\_", "_")
    assert all(word in shown for word in said), shown


def test_what_is_wrong_is_underlined_where_it_is_and_what_is_right_is_not(server: LanguageServer) -> None:
    assert server.open(f"{HEAD}model: Qwen/Qwen2.5-0.5B\ntraining: {{epochs: 1}}\n") == []
    wrong = server.open(f"{HEAD}model: a/b\ntraining:\n  learning_rat: 1.0e-5\n")
    assert [(d["range"]["start"]["line"], "learning_rat" in d["message"]) for d in wrong] == [(3, True)]
    value = server.open(f"{HEAD}model: a/b\ndistributed:\n  type: fsdpp\n")
    assert [d["range"]["start"]["line"] for d in value] == [3]


def test_the_example_specs_have_no_underlines(server: LanguageServer) -> None:
    for path in sorted((Path(__file__).resolve().parents[2] / "specs").glob("*.yaml")):
        assert server.open(path.read_text()) == [], path.name
