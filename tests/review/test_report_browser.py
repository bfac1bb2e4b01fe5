"""The report in a real Chromium: light and dark, wide and as narrow as a phone, printed, by keyboard; judged by axe-core."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from axoc.cli import main
from browser import chromium, evaluated, node_package, run_chromium
from click.testing import CliRunner
from reports import SPEC, write_run

pytestmark = pytest.mark.slow
WIDTHS = (1440, 390)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chromium()
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def light(folder: Path) -> Path:
    """Of a plan and a finished run, so that everything is in it."""
    import json

    spec = folder / "spec.yaml"
    spec.write_text(SPEC)
    bundle = folder / "bundle"
    kinds = "h100-sxm-80gb:8,a100-sxm-80gb:8"
    done = CliRunner().invoke(main, ["plan", str(spec), "--inventory", kinds, "--out", str(bundle)])
    assert done.exit_code == 0, done.output
    run = write_run(folder / "output", json.loads((bundle / "plan.json").read_text())["spec_digest"])
    page = folder / "light.html"
    done = CliRunner().invoke(main, ["report", str(bundle), "--run", str(run), "--out", str(page)])
    assert done.exit_code == 0, done.output
    return page


@pytest.fixture(scope="module")
def dark(light: Path) -> Path:
    page = light.with_name("dark.html")
    page.write_text(light.read_text().replace("(prefers-color-scheme: dark)", "all"))
    return page


@pytest.fixture(scope="module")
def axe(folder: Path) -> str:
    return (node_package(folder, "axe-core") / "axe.min.js").read_text()


OPENED = "document.querySelectorAll('details').forEach(d => d.open = true);"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_no_serious_problem(request: pytest.FixtureRequest, axe: str, theme: str, width: int) -> None:
    program = (
        OPENED
        + "const r = await axe.run(); return {found: r.violations.map(v => [v.impact, v.id, v.nodes[0].html]), passes: r.passes.length}"
    )
    answer = evaluated(request.getfixturevalue(theme), width, program, axe)
    assert answer["passes"] > 15
    assert not [v for v in answer["found"] if v[0] in ("serious", "critical")], answer["found"]


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen_and_text_in_drawings_stays_legible(light: Path, width: int) -> None:
    program = OPENED + (
        "const texts = [...document.querySelectorAll('figure.chart > svg text')].filter(t => t.textContent.length > 3);"
        "return {page: document.documentElement.scrollWidth, screen: innerWidth, drawings: document.querySelectorAll('figure').length,"
        "heights: texts.map(t => t.getBoundingClientRect()).map(r => Math.min(r.width, r.height)),"
        "scripts: performance.getEntriesByType('resource').length}"
    )
    answer = evaluated(light, width, program)
    assert answer["screen"] == width and answer["page"] <= width
    assert answer["drawings"] == 5 and answer["scripts"] == 0
    assert min(answer["heights"]) > 8


def test_everything_that_acts_is_reached_by_the_keyboard_and_shows_it(light: Path) -> None:
    program = OPENED + (
        "const acts = [...document.querySelectorAll('a[href], summary, [tabindex=\"0\"]')];"
        "return acts.map(e => { e.focus({focusVisible: true}); return [document.activeElement === e,"
        "getComputedStyle(e).outlineStyle !== 'none', !!(e.textContent.trim() || e.ariaLabel)] })"
    )
    answer = evaluated(light, 1440, program)
    assert len(answer) > 15 and all(all(row) for row in answer)
    scrolling = "return [...document.querySelectorAll('.scroll')].every(e => e.tabIndex === 0 && e.ariaLabel)"
    assert evaluated(light, 390, scrolling) is True


def test_the_two_themes_differ_and_both_have_contrast(light: Path, dark: Path) -> None:
    program = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    papers = [
        [int(v) for v in re.findall(r"\d+", color)] for p in (light, dark) for color in evaluated(p, 1440, program)
    ]
    assert sum(papers[0]) > 700 and sum(papers[1]) < 150 and sum(papers[2]) < 150 and sum(papers[3]) > 600


def test_it_prints(light: Path) -> None:
    pdf = light.with_suffix(".pdf")
    run_chromium(light, f"--print-to-pdf={pdf}")
    assert pdf.read_bytes().startswith(b"%PDF") and pdf.stat().st_size > 20_000
