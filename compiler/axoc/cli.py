"""The command line: click only, one function a command. The README lists the exit codes."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

import click

from axoc import __version__
from axoc.errors import Diagnostic, UserError

P = ParamSpec("P")
R = TypeVar("R")
EXIT_DRIFT: Final = 3
EXIT_NO_PLAN: Final = 4


def user_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turns what a user can act on into a message and an exit code: no traceback reaches a user."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except UserError as error:
            click.echo(error.render(), err=True)
            sys.exit(error.exit_code)
        except BrokenPipeError:
            sys.exit(0)

    return run


@contextmanager
def uncollected() -> Iterator[None]:
    """A search makes many small objects and no cycles worth a collector's time, which is a tenth of it."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="axoc")
def main() -> None:
    """A declarative compiler for LLM fine-tuning: a spec and an inventory in, a reviewable bundle out."""


@main.command("plan")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--inventory", metavar="NAME_OR_FILE", help="e.g. h100-sxm-80gb:8, cpu, or a file from `axoc inventory`.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("bundle"), show_default=True, help="Where to write."
)
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@click.option("--check", is_flag=True, help="Exit 3 where the bundle on disk is not what this spec gives now.")
@click.option("--frozen", is_flag=True, help="Refuse to plan with anything the lock does not hold.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@user_errors
def plan_command(
    spec: Path, inventory: str | None, out: Path, dry_run: bool, check: bool, frozen: bool, format_: str
) -> None:
    """Choose a plan for SPEC, explain it, and write its bundle."""
    from axoc import driver
    from axoc.ir.plan import NoPlan
    from axoc.review.policy import enforce

    if check and inventory is None:
        inventory = _inventory_of(out)
    with uncollected():
        planned = driver.plan(spec, inventory, frozen=frozen)
    if isinstance(planned.result, NoPlan):
        _show_no_plan(planned.result, format_)
    enforce(planned.result, str(spec))
    if check:
        _check(driver.bundle(planned, out), out)
        return
    if not dry_run:
        from axoc.emit.write import write_bundle

        write_bundle(driver.bundle(planned, out), out)
    _show_plan(planned.result, format_)
    if not dry_run and format_ == "text":
        click.echo(f"\nWritten: {out}. Review {out / 'PLAN.md'}, then start it with {out / 'launch.sh'}.")


def _show_plan(plan: Any, format_: str) -> None:
    if format_ == "json":
        from axoc.emit.plan_json import plan_dict

        click.echo(json.dumps(plan_dict(plan), indent=2, ensure_ascii=False, allow_nan=False))
        return
    from axoc.emit.terminal import render_plan

    click.echo(render_plan(plan, color=_color()), nl=False)


def _show_no_plan(no_plan: Any, format_: str) -> NoReturn:
    """JSON goes to standard output; the text, which is a refusal, to standard error."""
    from axoc.emit.plan_json import no_plan_dict
    from axoc.emit.terminal import render_no_plan

    if format_ == "json":
        click.echo(json.dumps(no_plan_dict(no_plan), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        click.echo(render_no_plan(no_plan, color=_color()), nl=False, err=True)
    sys.exit(EXIT_NO_PLAN)


def _color() -> bool:
    import os

    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def _inventory_of(out: Path) -> str | None:
    """What the bundle was planned for, so that --check needs no --inventory."""
    from axoc.emit.manifest import MANIFEST

    try:
        found = json.loads((out / MANIFEST).read_text(encoding="utf-8")).get("inventory")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def _check(bundle: Any, out: Path) -> None:
    from axoc.emit.write import compare_bundle

    drift = compare_bundle(bundle, out)
    for line in drift:
        click.echo(line)
    if drift:
        click.echo(f"{out} is not what the spec gives now: run axoc plan and review the change", err=True)
        sys.exit(EXIT_DRIFT)
    click.echo(f"{out} is up to date")


@main.command("explain")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--inventory", metavar="NAME_OR_FILE", help="e.g. h100-sxm-80gb:8, cpu, or a file from `axoc inventory`.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@user_errors
def explain_command(spec: Path, inventory: str | None, format_: str) -> None:
    """Show where the bytes of SPEC's plan go, by item and phase, and what breaks it first. SPEC may be a bundle."""
    from axoc.review import explain

    plan = explain.plan_of_bundle(spec) if spec.is_dir() else _planned_json(spec, inventory, format_)
    if format_ == "json":
        click.echo(json.dumps(explain.explanation(plan), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        click.echo(explain.as_text(plan, color=_color()), nl=False)


def _planned_json(spec: Path, inventory: str | None, format_: str) -> dict[str, Any]:
    """The plan as its JSON; where none fits, what is missing is shown and the program ends."""
    from axoc import driver
    from axoc.emit.plan_json import plan_dict
    from axoc.ir.plan import NoPlan

    result = driver.plan(spec, inventory).result
    if isinstance(result, NoPlan):
        _show_no_plan(result, format_)
    return plan_dict(result)


@main.command("diff")
@click.argument("old")
@click.argument("new")
@click.option("--bundle", default="bundle", show_default=True, help="Where a revision's bundle lies.")
@click.option("--format", "format_", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True)
@user_errors
def diff_command(old: str, new: str, bundle: str, format_: str) -> None:
    """Say what changed between two plans, why, and what it costs. Exit 3 where they differ.

    OLD and NEW are bundles, plan.json files, or git revisions: REV, or REV:PATH of a bundle.
    """
    from axoc.review import diff_text
    from axoc.review.diff import difference
    from axoc.review.sides import read_side

    sides = read_side(old, bundle), read_side(new, bundle)
    found = difference(*sides)
    if format_ == "json":
        click.echo(json.dumps(diff_text.as_dict(found, *sides), indent=2, ensure_ascii=False, allow_nan=False))
    elif format_ == "markdown":
        click.echo(diff_text.as_markdown(found, *sides), nl=False)
    else:
        click.echo(diff_text.as_text(found, *sides, color=_color()), nl=False)
    sys.exit(0 if found.empty else EXIT_DRIFT)


@main.command("verify")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--inventory", metavar="NAME_OR_FILE", help="e.g. h100-sxm-80gb, or a file from `axoc inventory`.")
@click.option("--python", default=sys.executable, help="A Python with torch and transformers.  [default: this one]")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@user_errors
def verify_command(spec: Path, inventory: str | None, python: str, format_: str) -> None:
    """Check the memory planned for SPEC against a trace of the real model code. Needs no GPU and no weights."""
    from axoc.review import verify

    found = verify.verify(spec, inventory, python)
    click.echo(verify.as_text(found) if format_ == "text" else json.dumps(verify.as_dict(found), indent=2), nl=False)


@main.command("calibrate")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The profile to write.")
@click.option("--python", default=sys.executable, help="A Python with torch, on the machine.  [default: this one]")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True, help="cpu: a trial.")
@click.option("--check", is_flag=True, help="Also time pieces of a step beside the sum of their operations.")
@click.option(
    "--from",
    "runs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Fold this metrics.json, and those after it, into a profile.",
)
@click.option(
    "--profile",
    type=click.Path(path_type=Path),
    help="With --from: the profile to fold into.  [default: the shipped one]",
)
@click.argument("more", nargs=-1, metavar="[METRICS...]", type=click.Path(path_type=Path))
@user_errors
def calibrate_command(
    out: Path,
    python: str,
    device: str,
    check: bool,
    runs: tuple[Path, ...],
    profile: Path | None,
    more: tuple[Path, ...],
) -> None:
    """Measure this machine's accelerator (in under three minutes) and write its profile for the time model.

    With --from metrics.json...: measure nothing, and fold what training runs took on the machine into the profile.
    """
    if runs:
        from axoc.review import fold

        click.echo(fold.as_text(fold.fold((*runs, *more), profile, out), out), nl=False)
        return
    if more or profile:
        raise click.UsageError("METRICS and --profile go with --from")
    from axoc.review.calibrate import calibrate

    calibrate(out, python, device, check)


@main.command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The spec to write.")
@click.option("--from", "tool", type=click.Choice(["axolotl", "llamafactory", "trl", "accelerate", "deepspeed"]))
@click.option("--model", help="model.id, where no file names one: accelerate's and DeepSpeed's do not.")
@click.option("--force", is_flag=True, help="Write over a spec that is there.")
@user_errors
def import_command(files: tuple[Path, ...], out: Path, tool: str | None, model: str | None, force: bool) -> None:
    """Turn configurations of axolotl, LLaMA-Factory, TRL, accelerate or DeepSpeed into a spec.

    Each key is carried over, or named with the reason why not. Several FILEs are of one run: a TRL file and accelerate's.
    """
    from axoc.importing.importer import imported, report, spec_text

    found = imported(files, tool, model)
    text = spec_text(found)
    if out.exists() and not force:
        raise UserError(
            Diagnostic(message="this file is there already", file=str(out), fix="name another, or pass --force")
        )
    out.write_text(text, encoding="utf-8")
    click.echo(report(found, color=_color()))
    click.echo(f"Written: {out}. Review it, then: axoc plan {out}")


@main.command("lock")
@click.argument("spec", type=click.Path(path_type=Path))
@user_errors
def lock_command(spec: Path) -> None:
    """Resolve what is not reproducible by nature (rows, digests, revisions) into the lock beside SPEC."""
    from axoc.locking import lock_spec

    click.echo(f"Written: {lock_spec(spec)}")


@main.command("schema")
@user_errors
def schema_command() -> None:
    """Print the spec's JSON Schema, for editors."""
    from axoc.spec.schema import json_schema

    click.echo(json_schema(), nl=False)


@main.command("inventory")
@user_errors
def inventory_command() -> None:
    """Print an inventory of this machine, to be saved and passed to `axoc plan --inventory`."""
    from axoc.facts.inventory import detect

    click.echo(detect(), nl=False)


@main.command("init")
@click.argument("spec", type=click.Path(path_type=Path), default=Path("spec.yaml"))
@user_errors
def init_command(spec: Path) -> None:
    """Write a commented starter spec."""
    from axoc.errors import Diagnostic
    from axoc.spec.init import starter_spec

    if spec.exists():
        raise UserError(
            Diagnostic(message="not overwritten: this file exists", file=str(spec), fix="name another file")
        )
    spec.write_text(starter_spec(), encoding="utf-8")
    click.echo(f"Written: {spec}. Next: axoc plan {spec} --inventory h100-sxm-80gb:8 --dry-run")


@main.command("plugins")
@user_errors
def plugins_command() -> None:
    """List what extends axoc and its runtime, from where, and what each overrides."""
    from axoc.plugins import plugin_rows

    for row in plugin_rows():
        click.echo(row)


if __name__ == "__main__":
    main()
