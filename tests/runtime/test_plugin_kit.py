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


def outcome(folder: Path, *path: Path) -> tuple[set[str], str]:
    """(tests that failed, the output) of a folder's tests, by a pytest that knows nothing of this repository."""
    command = [sys.executable, "-m", "pytest", "tests", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*command, "-rA"], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    failed = set(re.findall(r"^FAILED .*::(\w+)", done.stdout, re.MULTILINE))
    assert (done.returncode == 0) == (not failed), done.stdout + done.stderr
    return failed, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("example", "at_least"), [("tickets_dataset", 8), ("docstrings_dataset", 6)])
def test_the_examples_pass_as_installed_packages(tmp_path: Path, example: str, at_least: int) -> None:
    shutil.copytree(EXAMPLES / example, tmp_path / "source", ignore=shutil.ignore_patterns("*.egg-info", "build"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(tmp_path / "installed"), str(tmp_path / "source")], check=True)
    assert (tmp_path / "installed" / example).is_dir()
    where = [sys.executable, "-c", f"import {example}; print({example}.__file__)"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    found = subprocess.run(where, env=environment, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(tmp_path / "installed")), "an installation of the development environment was tested"
    failed, said = outcome(tmp_path / "source", tmp_path / "installed")
    assert not failed and int(re.findall(r"(\d+) passed", said)[0]) >= at_least, said


@pytest.mark.slow
def test_a_careless_format_fails_where_it_is_careless(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/conftest.py").write_text('pytest_plugins = ["axoc_runtime.testing"]\n')
    (tmp_path / "tests/test_careless.py").write_text(BROKEN)
    failed, _ = outcome(tmp_path)
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
