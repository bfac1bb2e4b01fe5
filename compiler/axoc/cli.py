"""The command line: click only, one function a command. The README lists the exit codes."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from axoc import __version__
from axoc.commands import data, finished, quantization, review, setup
from axoc.commands.common import EXIT_DRIFT, show_no_plan, use_color, user_errors
from axoc.errors import Diagnostic, UserError
from axoc.files import write_text


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
    """A declarative compiler for LLM fine-tuning: a spec and an inventory in, a reviewable bundle out.

    \b
    Examples:
      axoc init spec.yaml
      axoc plan spec.yaml --inventory h100-sxm-80gb:8 --dry-run
      axoc plan spec.yaml --inventory h100-sxm-80gb:8 && ./bundle/launch.sh

    \b
    Exit codes:
      0 done
      1 the inputs are wrong: a message each, nothing written
      2 usage
      3 drift (plan --check), a difference (diff), a bundle that was edited (verify)
      4 no plan fits: with the nearest ones and the smallest change that would
      5 a policy refuses the plan
      130 interrupted

    \b
    Environment:
      AXOC_POLICY files of limits, as plan --policy
      NO_COLOR    no colour, on a terminal too
    """


@main.command("plan")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--inventory", metavar="NAME_OR_FILE", help="e.g. h100-sxm-80gb:8, cpu, or a file from `axoc inventory`.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("bundle"), show_default=True, help="Where to write."
)
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@click.option("--check", is_flag=True, help="Exit 3 where the bundle on disk is not what this spec gives now.")
@click.option("--frozen", is_flag=True, help="Refuse to plan with anything the lock does not hold.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    type=click.Path(path_type=Path),
    envvar="AXOC_POLICY",
    show_envvar=True,
    help="A file of limits that the plan must keep, beside those of the spec.",
)
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@user_errors
def plan_command(
    spec: Path,
    inventory: str | None,
    out: Path,
    dry_run: bool,
    check: bool,
    frozen: bool,
    policies: tuple[Path, ...],
    format_: str,
) -> None:
    """Choose a plan for SPEC, explain it, and write its bundle.

    \b
    Examples:
      axoc plan spec.yaml --inventory h100-sxm-80gb:8
      axoc plan spec.yaml --inventory here.yaml --dry-run --format json
      axoc plan spec.yaml --check
    """
    from axoc import driver
    from axoc.ir.plan import NoPlan
    from axoc.review.policy import enforce, rules_of_file, rules_of_spec

    rules = [rules_of_file(path) for path in policies]
    if check and inventory is None:
        inventory = _inventory_of(out)
    with uncollected():
        planned = driver.plan(spec, inventory, frozen=frozen)
    if isinstance(planned.result, NoPlan):
        show_no_plan(planned.result, format_)
    enforce(planned.result, rules_of_spec(planned.result, planned.inputs.spec_text, str(spec)), *rules)
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

    click.echo(render_plan(plan, color=use_color()), nl=False)


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

    \b
    Examples:
      axoc calibrate --out h100.json
      axoc calibrate --from axoc-output/metrics.json --out h100.json
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

    \b
    Examples:
      axoc import train.yml --out spec.yaml
      axoc import trl.yaml accelerate.yaml --out spec.yaml --from trl
    """
    from axoc.importing.importer import imported, report, spec_text

    found = imported(files, tool, model)
    text = spec_text(found)
    if out.exists() and not force:
        raise UserError(
            Diagnostic(message="this file is there already", file=str(out), fix="name another, or pass --force")
        )
    write_text(out, text)
    click.echo(report(found, color=use_color()))
    click.echo(f"Written: {out}. Review it, then: axoc plan {out}")


@main.command("lock")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--lengths",
    type=click.Path(path_type=Path),
    help="A preparation's lengths.json, or its folder: rows' real lengths.",
)
@user_errors
def lock_command(spec: Path, lengths: Path | None) -> None:
    """Resolve what is not reproducible by nature (rows, digests, revisions) into the lock beside SPEC.

    \b
    Example:
      axoc lock spec.yaml && axoc plan spec.yaml --frozen
    """
    from axoc.locking import lock_spec

    click.echo(f"Written: {lock_spec(spec, lengths)}")


@main.command("plugins")
@user_errors
def plugins_command() -> None:
    """List what extends axoc and its runtime, from where, and what each overrides.

    \b
    Example:
      axoc plugins
    """
    from axoc.plugins import plugin_rows

    for row in plugin_rows():
        click.echo(row)


for command in (
    data.data_group,
    review.explain_command,
    review.diff_command,
    review.verify_command,
    review.report_command,
    finished.export_command,
    quantization.quant_profile_command,
    setup.schema_command,
    setup.inventory_command,
    setup.init_command,
    setup.doctor_command,
    setup.completion_command,
):
    main.add_command(command)


if __name__ == "__main__":
    main()
