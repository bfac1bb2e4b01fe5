"""What a dry run pays for: the whole command, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "deepspeed", "datasets", "accelerate", "peft", "axoc_runtime")
PROGRAM = """
import sys
from axoc.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print("LOADED", *sorted({m.split(".")[0] for m in sys.modules}), file=sys.stderr)
"""


@pytest.mark.parametrize("options", [["--dry-run"], ["--dry-run", "--format", "json"]])
def test_a_dry_run_imports_no_deep_learning_library_and_no_templates(options: list[str]) -> None:
    command = [sys.executable, "-c", PROGRAM, "plan", "specs/quickstart.yaml", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = next(line for line in done.stderr.splitlines() if line.startswith("LOADED")).split()
    assert "numpy" in loaded and "pydantic" in loaded, "the list is of this very run"
    assert not set(loaded) & {*HEAVY, "jinja2"}
