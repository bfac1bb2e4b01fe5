"""Commands for setting up: schema, inventory, init, doctor, completion."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from axoc.commands.common import use_color, user_errors
from axoc.errors import Diagnostic, UserError
from axoc.files import write_text

SHELLS = ("bash", "zsh", "fish")


@click.command("schema")
@user_errors
def schema_command() -> None:
    """Print the spec's JSON Schema, for editors.

    \b
    Example:
      axoc schema > spec.schema.json
    """
    from axoc.spec.schema import json_schema

    click.echo(json_schema(), nl=False)


@click.command("inventory")
@user_errors
def inventory_command() -> None:
    """Print an inventory of this machine, to be saved and passed to `axoc plan --inventory`.

    \b
    Example:
      axoc inventory > here.yaml && axoc plan spec.yaml --inventory here.yaml
    """
    from axoc.facts.inventory import detect

    click.echo(detect(), nl=False)


@click.command("init")
@click.argument("spec", type=click.Path(path_type=Path), default=Path("spec.yaml"))
@click.option("--model", help="A hub id or a local folder.")
@click.option("--data", help="A file, folder, glob, hub id or address.")
@click.option("--adapter", type=click.Choice(["lora", "qlora", "none"]), help="none trains all weights.")
@click.option("--max-seq-length", type=click.IntRange(8, 2**24), metavar="TOKENS", help="Of a row.")
@click.option("--inventory", metavar="NAME_OR_FILE", help="Hardware to plan for.  [default: this machine's GPUs]")
@click.option("--yes", is_flag=True, help="Ask nothing: take the defaults for what no option gives.")
@user_errors
def init_command(
    spec: Path,
    model: str | None,
    data: str | None,
    adapter: str | None,
    max_seq_length: int | None,
    inventory: str | None,
    yes: bool,
) -> None:
    """Write a commented starter spec. On a terminal it asks what no option gives; the hardware is looked for.

    \b
    Examples:
      axoc init
      axoc init spec.yaml --model meta-llama/Llama-3.1-8B --data data/train.jsonl --adapter lora --yes
    """
    from dataclasses import fields

    from axoc.facts.machine import inventory_name
    from axoc.spec.init import Answers, starter_spec

    if spec.exists():
        raise UserError(
            Diagnostic(message="not overwritten: this file exists", file=str(spec), fix="name another file")
        )
    given: dict[str, Any] = {"model": model, "data": data, "adapter": adapter, "max_seq_length": max_seq_length}
    given["inventory"] = inventory or inventory_name()
    answers = Answers(**{k: v for k, v in given.items() if v is not None})
    if sys.stdin.isatty() and not yes:
        set_by = given | {"inventory": inventory}
        open_fields = [f.name for f in fields(Answers) if set_by[f.name] is None]
        answers = _asked(answers, open_fields)
    write_text(spec, starter_spec(answers))
    click.echo(f"Written: {spec}. Next: axoc plan {spec}{'' if answers.inventory else HARDWARE} --dry-run")


HARDWARE = " --inventory h100-sxm-80gb:8"
QUESTIONS = {
    "model": "Model (a hub id or a local folder)",
    "data": "Data (a file, folder, glob, hub id or address)",
    "adapter": "Train an adapter",
    "max_seq_length": "Longest row, in tokens",
    "inventory": "Hardware (e.g. h100-sxm-80gb:8, or a file)",
}


def _asked(answers: Any, names: list[str]) -> Any:
    """Each with its default; hardware is asked for until it is known."""
    from dataclasses import replace

    from axoc.facts.inventory import parse_inventory
    from axoc.spec.init import ADAPTERS

    kinds: dict[str, Any] = {"adapter": click.Choice(ADAPTERS), "max_seq_length": click.IntRange(8, 2**24)}
    said: dict[str, Any] = {}
    for name in (n for n in QUESTIONS if n in names):
        default = getattr(answers, name) or "h100-sxm-80gb:8"
        said[name] = click.prompt(QUESTIONS[name], default=default, type=kinds.get(name, str))
    while "inventory" in said and not Path(said["inventory"]).is_file():
        try:
            parse_inventory(said["inventory"], None, None)
            break
        except UserError as error:
            click.echo(error.render(), err=True)
            said["inventory"] = click.prompt(QUESTIONS["inventory"], default="h100-sxm-80gb:8")
    return replace(answers, **said)


@click.command("doctor")
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--python", default=sys.executable, help="The Python that would train.  [default: this one]")
@click.option("--offline", is_flag=True, help="Do not ask the hub.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@user_errors
def doctor_command(bundle: Path | None, python: str, offline: bool, format_: str) -> None:
    """Look at this machine: what is installed, versions against the matrix, GPUs, memory, disk, the hub.

    Each problem comes with its fix. With a BUNDLE, whether the machine has what that needs. Exit 1 where there is a problem.

    \b
    Examples:
      axoc doctor
      axoc doctor bundle --python ~/envs/train/bin/python
    """
    from axoc.review import doctor

    found = doctor.findings(doctor.Asked(bundle=bundle, python=python, offline=offline))
    if format_ == "json":
        click.echo(json.dumps(doctor.as_dict(found), indent=2, ensure_ascii=False))
    else:
        click.echo(doctor.as_text(found, color=use_color()), nl=False)
    sys.exit(int(any(f.state == "problem" for f in found)))


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@user_errors
def completion_command(shell: str) -> None:
    """Print a script that completes axoc's commands and options in SHELL.

    \b
    Examples:
      axoc completion bash > ~/.local/share/bash-completion/completions/axoc
      axoc completion zsh > ~/.zfunc/_axoc
      axoc completion fish > ~/.config/fish/completions/axoc.fish
    """
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root().command
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(root, {}, "axoc", "_AXOC_COMPLETE").source())
