"""`axoc report`: the page of a bundle or a spec, and of a run what it measured beside what was predicted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from axoc import driver
from axoc.emit.documents import report_html
from axoc.emit.run_view import Run
from axoc.errors import Diagnostic, UserError
from axoc.inputs import read_bytes
from axoc.ir.plan import NoPlan, Plan
from axoc.review.bundle_check import NO_PLAN
from axoc.review.explain import plan_of_bundle
from axoc.review.rebuilt import given, rebuilt

NEEDED: Final = ("comparison", "steps", "strategy", "world_size", "accelerator", "spec_digest")


def page(source: Path, inventory: str | None, run: Path | None) -> str:
    """The page as text. Raises UserError."""
    plan = bundle_plan(source) if source.is_dir() else _planned(source, inventory)
    measured = None if run is None else read_run(run)
    if measured is not None and measured.metrics["spec_digest"] != plan.spec_digest:
        message = "this run was of another spec: the digests differ, so its plan is not this one"
        raise UserError(
            Diagnostic(message=message, file=str(run), fix="name the bundle that the run was launched from")
        )
    return report_html(plan, measured)


def bundle_plan(folder: Path) -> Plan:
    """The plan that a bundle holds. Raises UserError."""
    plan = plan_of_bundle(folder)
    try:
        return rebuilt(plan, given(folder, _name(folder)))
    except NO_PLAN as error:
        message = f"this bundle's plan cannot be read: {' '.join(str(error).split())[:120]}"
        fix = "axoc verify says what is wrong with it; axoc plan writes it again"
        raise UserError(Diagnostic(message=message, file=str(folder), fix=fix)) from None


def _name(folder: Path) -> str:
    try:
        return str(json.loads((folder / "job.json").read_text(encoding="utf-8"))["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return folder.name


def _planned(spec: Path, inventory: str | None) -> Plan:
    result = driver.plan(spec, inventory).result
    if isinstance(result, NoPlan):
        fix = "axoc plan says what is missing"
        raise UserError(Diagnostic(message="no plan fits, so there is nothing to show", file=str(spec), fix=fix))
    return result


def read_run(folder: Path) -> Run:
    """An output folder's metrics. Raises UserError where the run has not finished, or the files are none of axoc's."""
    path = folder / "metrics.json"
    fix = "name the output folder of a run that has finished"
    try:
        metrics = json.loads(read_bytes(path, "the run's metrics"))
    except ValueError as error:
        raise UserError(Diagnostic(message=f"not JSON: {error}", file=str(path), fix=fix)) from None
    missing = [k for k in NEEDED if not isinstance(metrics, dict) or k not in metrics]
    if missing:
        message = f"no metrics of a finished run: {', '.join(missing)} is not there"
        raise UserError(Diagnostic(message=message, file=str(path), fix=fix))
    return Run(metrics=metrics, lines=_lines(folder / "metrics.jsonl"))


def _lines(path: Path) -> list[Mapping[str, Any]]:
    """Whole lines: what a kill cut short is left out."""
    found: list[Mapping[str, Any]] = []
    if not path.is_file():
        return found
    for line in read_bytes(path, "the run's log").decode("utf-8", "replace").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("step"), (int, float)):
            found.append(value)
    return found
