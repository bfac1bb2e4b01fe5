"""Ctrl-C is no wrong input: it ends a command with a code of its own, and without a traceback."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from axoc.cli import main
from click.testing import CliRunner


@pytest.mark.parametrize("raised", [KeyboardInterrupt, click.Abort], ids=["at work", "at a question"])
def test_who_interrupts_a_command_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: type[BaseException]
) -> None:
    def pressed(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("axoc.driver.plan", pressed)
    done = CliRunner().invoke(main, ["plan", str(tmp_path / "spec.yaml")])
    assert (done.exit_code, done.stdout, done.stderr) == (130, "", "\naxoc: interrupted\n")
