"""The documents of a bundle: for reviewers, for browsers, for a container build."""

from __future__ import annotations

from axoc.emit.placement import BASE_IMAGES, placement
from axoc.emit.render import render
from axoc.emit.report_view import report_view
from axoc.emit.run_view import Run, run_view
from axoc.emit.settings import settings
from axoc.emit.text import printable
from axoc.emit.view import plan_view
from axoc.ir.plan import Plan


def plan_markdown(plan: Plan, base_dir: str) -> str:
    """PLAN.md: what a reviewer reads in a pull request. ``base_dir``: where relative paths count from, from the bundle."""
    return render("PLAN.md.j2", view=plan_view(plan), others=settings(plan), base_dir=printable(base_dir))


def report_html(plan: Plan, run: Run | None = None) -> str:
    """report.html: the same with pictures, in one file that loads nothing. ``run``: what a finished one has measured."""
    measured = None if run is None else run_view(run)
    return render("report.html.j2", view=plan_view(plan), more=report_view(plan), run=measured)


def dockerfile(plan: Plan) -> str:
    """A container that runs the bundle. It holds no value that a user wrote."""
    profile = placement(plan).profile
    return render("Dockerfile.j2", profile=profile, image=BASE_IMAGES.get(profile))
