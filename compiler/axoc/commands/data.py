"""Commands for data: check."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from axoc.commands.common import user_errors


@click.group("data")
def data_group() -> None:
    """Look at the rows of a spec's datasets."""


@data_group.command("check")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    help="Where to write all findings.  [default: OUTPUT_DIR/data-check.csv]",
)
@click.option("--python", default=sys.executable, help="A Python with transformers and datasets.  [default: this one]")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@user_errors
def check_command(spec: Path, report: Path | None, python: str, format_: str) -> None:
    """Read and check every row of SPEC's datasets: each finding with file, row, byte, column, sample and fix.

    Exit 1 where rows or files cannot be used; warnings alone exit 0.

    \b
    Example:
      axoc data check spec.yaml
    """
    from axoc.review.data import check

    sys.exit(check(spec, report, python, as_json=format_ == "json"))
