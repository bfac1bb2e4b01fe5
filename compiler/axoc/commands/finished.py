"""Commands on a finished run: export."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from axoc.commands.common import user_errors


@click.command("export")
@click.argument("run", metavar="RUN_DIR", type=click.Path(path_type=Path))
@click.option("--formats", required=True, metavar="A,B,...", help="e.g. gguf,gguf:q4_k_m,onnx,vllm:fp8")
@click.option("--quantization", default="none", show_default=True, help="Of every format that has it and names none.")
@click.option("--python", default=sys.executable, help="A Python with axoc-runtime[export].  [default: this one]")
@user_errors
def export_command(run: Path, formats: str, quantization: str, python: str) -> None:
    """Write the model of a finished run in other formats, and check each with the library that will serve it.

    RUN_DIR is the run's output folder. Each format gets a folder under RUN_DIR/exports with a model card; one that its
    consumer computes differently is not kept.

    \b
    Example:
      axoc export axoc-output --formats gguf,onnx
    """
    from axoc.review.export import export

    sys.exit(export(run, formats, quantization, python))
