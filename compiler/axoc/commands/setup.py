"""Commands for setting up: schema, inventory, init."""

from __future__ import annotations

from pathlib import Path

import click

from axoc.commands.common import user_errors
from axoc.errors import Diagnostic, UserError


@click.command("schema")
@user_errors
def schema_command() -> None:
    """Print the spec's JSON Schema, for editors."""
    from axoc.spec.schema import json_schema

    click.echo(json_schema(), nl=False)


@click.command("inventory")
@user_errors
def inventory_command() -> None:
    """Print an inventory of this machine, to be saved and passed to `axoc plan --inventory`."""
    from axoc.facts.inventory import detect

    click.echo(detect(), nl=False)


@click.command("init")
@click.argument("spec", type=click.Path(path_type=Path), default=Path("spec.yaml"))
@user_errors
def init_command(spec: Path) -> None:
    """Write a commented starter spec."""
    from axoc.spec.init import starter_spec

    if spec.exists():
        raise UserError(
            Diagnostic(message="not overwritten: this file exists", file=str(spec), fix="name another file")
        )
    spec.write_text(starter_spec(), encoding="utf-8")
    click.echo(f"Written: {spec}. Next: axoc plan {spec} --inventory h100-sxm-80gb:8 --dry-run")
