"""Commands for reviewing: explain, diff, verify, report."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from axoc.commands.common import EXIT_DRIFT, show_no_plan, use_color, user_errors
from axoc.files import write_text


@click.command("explain")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--inventory", metavar="NAME_OR_FILE", help="e.g. h100-sxm-80gb:8, cpu, or a file from `axoc inventory`.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@user_errors
def explain_command(spec: Path, inventory: str | None, format_: str) -> None:
    """Show where the bytes of SPEC's plan go, by item and phase, and what breaks it first. SPEC may be a bundle.

    \b
    Examples:
      axoc explain spec.yaml --inventory h100-sxm-80gb:8
      axoc explain bundle --format json
    """
    from axoc.review import explain

    plan = explain.plan_of_bundle(spec) if spec.is_dir() else _planned_json(spec, inventory, format_)
    if format_ == "json":
        click.echo(json.dumps(explain.explanation(plan), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        click.echo(explain.as_text(plan, color=use_color()), nl=False)


def _planned_json(spec: Path, inventory: str | None, format_: str) -> dict[str, Any]:
    """The plan as its JSON; where none fits, what is missing is shown and the program ends."""
    from axoc import driver
    from axoc.emit.plan_json import plan_dict
    from axoc.ir.plan import NoPlan

    result = driver.plan(spec, inventory).result
    if isinstance(result, NoPlan):
        show_no_plan(result, format_)
    return plan_dict(result)


@click.command("diff")
@click.argument("old")
@click.argument("new")
@click.option("--bundle", default="bundle", show_default=True, help="Where a revision's bundle lies.")
@click.option("--format", "format_", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True)
@user_errors
def diff_command(old: str, new: str, bundle: str, format_: str) -> None:
    """Say what changed between two plans, why, and what it costs. Exit 3 where they differ.

    OLD and NEW are bundles, plan.json files, or git revisions: REV, or REV:PATH of a bundle. NEW may also be a spec: what
    it gives now, for the hardware of OLD.

    \b
    Examples:
      axoc diff main bundle
      axoc diff bundle spec.yaml
      axoc diff v1.0:bundle main:bundle --format markdown
    """
    from axoc.ir.plan import NoPlan
    from axoc.review import diff_text
    from axoc.review.diff import difference
    from axoc.review.sides import is_spec, planned_side, read_side

    before = read_side(old, bundle)
    after = planned_side(Path(new), before.inventory, bundle) if is_spec(new) else read_side(new, bundle)
    if isinstance(after, NoPlan):
        show_no_plan(after, "json" if format_ == "json" else "text")
    sides = before, after
    found = difference(*sides)
    if format_ == "json":
        click.echo(json.dumps(diff_text.as_dict(found, *sides), indent=2, ensure_ascii=False, allow_nan=False))
    elif format_ == "markdown":
        click.echo(diff_text.as_markdown(found, *sides), nl=False)
    else:
        click.echo(diff_text.as_text(found, *sides, color=use_color()), nl=False)
    sys.exit(0 if found.empty else EXIT_DRIFT)


@click.command("verify")
@click.argument("spec", metavar="SPEC_OR_BUNDLE", type=click.Path(path_type=Path))
@click.option("--inventory", metavar="NAME_OR_FILE", help="Of a spec: e.g. h100-sxm-80gb, or a file.")
@click.option("--python", default=sys.executable, help="Of a spec: a Python with torch.  [default: this one]")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@user_errors
def verify_command(spec: Path, inventory: str | None, python: str, format_: str) -> None:
    """Check a bundle's files against each other, or the memory and time planned for a spec against a trace.

    Of a bundle: which files were altered, and which edit contradicts what, by file and line; exit 3 where there is one.
    Of a spec: its planned memory and step time beside a trace of the real model code. That needs no GPU and no weights.

    \b
    Examples:
      axoc verify bundle
      axoc verify spec.yaml --inventory h100-sxm-80gb
    """
    if spec.is_dir():
        _verify_bundle(spec, format_)
        return
    from axoc.review import tracing

    with tracing.tracer(python) as tracer:  # before all that planning imports: what it imports takes longer
        from axoc.review import verify

        found = verify.verify(spec, inventory, tracer)
    click.echo(verify.as_text(found) if format_ == "text" else json.dumps(verify.as_dict(found), indent=2), nl=False)


def _verify_bundle(folder: Path, format_: str) -> None:
    from axoc.review import bundle_check

    found = bundle_check.check_bundle(folder)
    if format_ == "json":
        click.echo(json.dumps(bundle_check.as_dict(found), indent=2, ensure_ascii=False))
    else:
        click.echo(bundle_check.as_text(found, folder), nl=False)
    sys.exit(0 if found.clean else EXIT_DRIFT)


@click.command("report")
@click.argument("source", metavar="SPEC_OR_BUNDLE", type=click.Path(path_type=Path))
@click.option("--inventory", metavar="NAME_OR_FILE", help="Of a spec: e.g. h100-sxm-80gb:8, or a file.")
@click.option("--run", metavar="DIR", type=click.Path(path_type=Path), help="The output folder of a finished run.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="- for standard output.",
)
@user_errors
def report_command(source: Path, inventory: str | None, run: Path | None, out: Path) -> None:
    """Write one HTML file with pictures of a plan, and of a run what it measured. It loads nothing.

    \b
    Examples:
      axoc report bundle
      axoc report bundle --run axoc-output --out run.html
      axoc report spec.yaml --inventory h100-sxm-80gb:8 --out - > plan.html
    """
    from axoc.review.report import page

    text = page(source, inventory, run)
    if str(out) == "-":
        click.echo(text, nl=False)
        return
    write_text(out, text)
    click.echo(f"Written: {out}")
