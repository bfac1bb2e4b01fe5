"""The kit for authors of plugins: the examples pass it as installed packages, and formats that are wrong do not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
AT_LEAST = {"tickets_dataset": 8, "docstrings_dataset": 6}
"""Example -> tests that it has."""
BROKEN = """
from axoc_runtime.ingest.base import Conversation, Document, Schema
from axoc_runtime.testing import SchemaConformance


class Careless(Schema):
    name = "careless"
    makes = Conversation
    columns = ("said",)
    optional = ("forgotten",)

    def convert(self, row):
        row["seen"] = True
        return Document(text=row["said"].strip())


class TestCareless(SchemaConformance):
    schema = Careless
    good = ({"said": "hello"},)
    bad = (({"said": ""}, "said"),)
"""


Outcome = tuple[set[str], set[str]]
"""Tests that failed, and those that passed."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, as pip installs them of their sources."""
    folder = tmp_path_factory.mktemp("plugins")
    sources = [folder / example for example in AT_LEAST]
    for source in sources:
        shutil.copytree(EXAMPLES / source.name, source, ignore=shutil.ignore_patterns("*.egg-info", "build"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--no-compile", "--target", str(folder / "installed"), *map(str, sources)], check=True)
    return folder


@pytest.fixture(scope="module")
def outcomes(installed: Path) -> dict[str, Outcome]:
    """Of the tests in each folder, by a pytest that knows nothing of this repository."""
    tests = installed / "careless" / "tests"
    tests.mkdir(parents=True)
    (tests / "conftest.py").write_text('pytest_plugins = ["axoc_runtime.testing"]\n')
    (tests / "test_careless.py").write_text(BROKEN)
    folders = [f"{name}/tests" for name in (*AT_LEAST, "careless")]
    command = [sys.executable, "-m", "pytest", *folders, "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]
    environment = os.environ | {"PYTHONPATH": str(installed / "installed"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*command, "-rA"], cwd=installed, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1, done.stdout + done.stderr  # the careless ones fail, and nothing else went wrong
    found: dict[str, Outcome] = {name: (set(), set()) for name in (*AT_LEAST, "careless")}
    for verdict, name, test in re.findall(r"^(FAILED|PASSED) (\w+)/.*::(\w+)", done.stdout, re.MULTILINE):
        found[name][verdict == "PASSED"].add(test)
    return found


@pytest.mark.slow
def test_what_is_tested_is_what_was_installed(installed: Path) -> None:
    """And no installation of the development environment."""
    where = f"import {', '.join(AT_LEAST)}; print({', '.join(f'{name}.__file__' for name in AT_LEAST)})"
    environment = os.environ | {"PYTHONPATH": str(installed / "installed")}
    done = subprocess.run([sys.executable, "-c", where], env=environment, capture_output=True, text=True, check=True)
    assert all(Path(file).is_relative_to(installed / "installed") for file in done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize("example", AT_LEAST)
def test_the_examples_pass_as_installed_packages(outcomes: dict[str, Outcome], example: str) -> None:
    failed, passed = outcomes[example]
    assert not failed and len(passed) >= AT_LEAST[example], passed


@pytest.mark.slow
def test_a_careless_format_fails_where_it_is_careless(outcomes: dict[str, Outcome]) -> None:
    failed, _ = outcomes["careless"]
    assert failed == {
        "test_it_is_found_by_its_entry_point",
        "test_its_columns_are_all_taught",
        "test_good_rows_are_recognized",
        "test_good_rows_convert_alike_every_time_and_stay_as_they_are",
        "test_bad_rows_name_their_column",
        "test_whatever_stands_in_a_column_is_an_example_or_a_bad_row",
    }


def test_the_example_format_is_short() -> None:
    source = (EXAMPLES / "tickets_dataset/src/tickets_dataset/__init__.py").read_text()
    assert len(source.splitlines()) < 30
