"""The report's numbers are the plan's: geometry is checked against figures, and what a run measured is beside them."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from axoc import driver
from axoc.cli import main
from axoc.emit.charts import BOTTOM, LEFT, RIGHT, TOP, front, nice_step, staircase, x_scale, y_scale
from axoc.emit.report_view import phases, report_view, sequence_against_memory, time_against_cost
from axoc.emit.tree import decision_tree
from axoc.ir.plan import Plan
from click.testing import CliRunner
from reports import SPEC, write_run


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "spec.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def plan(spec: Path) -> Plan:
    result = driver.plan(spec, "h100-sxm-80gb:8,a100-sxm-80gb:8").result
    assert isinstance(result, Plan)
    return result


class Page(HTMLParser):
    """Tags that load, ids, links within the page, and whether all tags are closed."""

    VOID = ("meta", "link", "br", "hr", "img", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [i for i in [values.get("id")] if i]
        href = values.get("href") or ""
        self.anchors += [href[1:]] if href.startswith("#") else []
        self.loads += [v for k, v in attrs if v and (k in ("src", "srcset", "style") or (k == "href" and tag != "a"))]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag


def test_one_file_that_loads_nothing_and_takes_values_for_text(spec: Path) -> None:
    command = ["report", str(spec), "--inventory", "h100-sxm-80gb:8", "--out", "-"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    page = Page(done.output)
    assert not page.open and not page.loads and not {"script", "link", "img", "iframe"} & set(page.tags)
    assert len(page.ids) == len(set(page.ids)) and set(page.anchors) <= set(page.ids)
    assert "url(" not in done.output and "@import" not in done.output and "default-src 'none'" in done.output
    assert "&lt;script&gt;" in done.output
    for chart in ("Sequence length against memory", "time against cost", "time against memory", "decision tree"):
        assert chart in done.output


def test_stacks_are_the_ledger_to_scale(plan: Plan) -> None:
    memory, drawn = plan.chosen.estimate.memory, phases(plan)
    assert drawn is not None
    percent = 100 / max(memory.capacity_bytes, memory.device_used_bytes)
    for stack, phase in zip(drawn.stacks, memory.by_phase, strict=False):
        total = sum(i.bytes for i in phase.items) * percent
        assert sum(s.width for s in stack.segments) == pytest.approx(total, abs=0.02)
        ends = [(s.x, s.x + s.width) for s in stack.segments]
        assert all(a[1] <= b[0] + 0.01 for a, b in pairwise(ends))
    assert [s.name for s in drawn.stacks if s.peak] == [memory.peak_phase.replace("_", ", ")]
    assert drawn.limit_percent == pytest.approx(100.0 * memory.capacity_bytes * percent / 100, abs=0.02)


def test_candidates_stand_where_their_figures_are(plan: Plan) -> None:
    chart = time_against_cost(plan)
    assert chart is not None
    costs = [float(r[3].replace(",", "")) for r in chart.rows]
    stars = [m for m in chart.marks if m.kind == "plan"]
    assert len(stars) == 1 and len(chart.marks) == len(chart.rows)
    assert all(LEFT <= m.x <= RIGHT and TOP <= m.y <= BOTTOM for m in chart.marks)
    by_cost = sorted(chart.marks, key=lambda m: -m.y)
    assert by_cost[0].y == max(m.y for m in chart.marks) and min(costs) <= costs[0]
    assert {c.candidate.accelerator for c in (*plan.candidates, *plan.pareto)} == {r[1] for r in chart.rows}


def test_no_candidate_beats_one_of_the_front_in_both() -> None:
    rng = random.Random(5)
    for _ in range(50):
        points = [(rng.randint(1, 20) * 1.0, rng.randint(1, 20) * 1.0) for _ in range(30)]
        kept = front(points)
        beaten = [p for p in points if any(o[0] <= p[0] and o[1] <= p[1] and o != p for o in points)]
        assert set(kept) == set(points) - set(beaten)
        corners = staircase(kept, 30, 40)
        assert corners[0] == (kept[0][0], 40) and corners[-1] == (30, kept[-1][1]) and set(kept) <= set(corners)


def test_scales_keep_order_and_ticks_are_round() -> None:
    rng = random.Random(7)
    for _ in range(100):
        values = [rng.uniform(0, 10 ** rng.randint(-3, 9)) for _ in range(5)]
        x, y = x_scale(values), y_scale(values, from_zero=False)
        assert [x.at(v) for v in sorted(values)] == sorted(x.at(v) for v in values)
        assert [y.at(v) for v in sorted(values)] == sorted((y.at(v) for v in values), reverse=True)
        assert 2 <= len(x.ticks(str)) <= 7 and all(LEFT <= t.at <= RIGHT for t in x.ticks(str))
    assert [nice_step(v) for v in (0.7, 1.0, 1.2, 3.0, 60.0)] == [1, 1, 2, 5, 100]
    assert x_scale([5.0, 5.0]).high > x_scale([5.0, 5.0], from_zero=False).low


def test_the_curve_of_lengths_rises_through_the_plan_and_crosses_the_limit_where_the_margin_says(plan: Plan) -> None:
    assert plan.margin is not None
    (knob,) = [k for k in plan.margin.knobs if k.curve]
    memory = plan.chosen.estimate.memory
    room = memory.capacity_bytes * (1 - plan.request.policy.memory_safety)
    used = {p.value: p.device_used_bytes for p in knob.curve}
    assert list(used) == sorted(used) and list(used.values()) == sorted(used.values())
    assert used[knob.value] == pytest.approx(memory.device_used_bytes, rel=0.02)
    assert used[knob.fits_to] <= room and (knob.breaks_at is None or max(used.values()) > room)
    chart = sequence_against_memory(plan)
    assert chart is not None and f"{knob.fits_to:,}" in chart.summary


def test_the_tree_ends_in_the_plan_and_tells_of_every_strategy(plan: Plan) -> None:
    levels = decision_tree(plan)
    for level in levels:
        assert [b.chosen for b in level.branches] == [False] * (len(level.branches) - 1) + [True]
        assert all(b.outcome for b in level.branches)
    told = {b.value for b in levels[0].branches} if levels[0].field == "accelerator" else set()
    assert told == {c.candidate.accelerator for c in (*plan.candidates, *plan.pareto)}
    (strategies,) = [lv for lv in levels if lv.field == "distributed.type"]
    chosen = plan.chosen.candidate
    alike = [c.candidate.strategy for c in plan.candidates if c.candidate.accelerator == chosen.accelerator]
    assert set(alike) <= {b.value for b in strategies.branches}


def test_a_length_or_price_that_is_not_known_leaves_cost_out(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC.replace("training: {max_steps: 500}\n", ""))
    result = driver.plan(tmp_path / "spec.yaml", "h100-sxm-80gb:8").result
    assert isinstance(result, Plan)
    assert [c.id for c in report_view(result).charts] == ["memory", "sequence"]


# --- a run


@pytest.fixture
def bundle(spec: Path, tmp_path: Path) -> Path:
    out = tmp_path / "bundle"
    done = CliRunner().invoke(main, ["plan", str(spec), "--inventory", "h100-sxm-80gb:8", "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out


def test_of_a_bundle_it_is_the_bundles_own_page(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert CliRunner().invoke(main, ["report", str(bundle), "--out", str(out)]).exit_code == 0
    assert out.read_bytes() == (bundle / "report.html").read_bytes()


def test_a_run_beside_its_plan(bundle: Path, tmp_path: Path) -> None:
    digest = json.loads((bundle / "plan.json").read_text())["spec_digest"]
    run = write_run(tmp_path / "output", digest)
    done = CliRunner().invoke(main, ["report", str(bundle), "--run", str(run), "--out", "-"])
    assert done.exit_code == 0, done.output
    page = done.output
    assert not Page(page).open
    assert re.search(r"one step</th><td[^>]*>2 s</td><td[^>]*>2.5 s</td><td[^>]*>\+25.0%", page)
    assert 'x="37.5" width="12.5"' in page and 'x="50" width="12.5"' in page
    assert (
        "training from 2.975 to 2" in page and "held out from 2.1 to 2.1" in page and "9.5" in page and "4.25" in page
    )


def test_a_run_of_another_plan_or_none_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", "sha256:0")
    broken = write_run(tmp_path / "broken", "sha256:0")
    (broken / "metrics.json").write_text('{"steps": 1}')
    for folder, said in ((other, "another spec"), (broken, "comparison"), (tmp_path, "metrics.json")):
        done = CliRunner().invoke(
            main, ["report", str(bundle), "--run", str(folder), "--out", str(tmp_path / "x.html")]
        )
        assert done.exit_code == 1 and said in done.output and "Traceback" not in done.output
        assert not (tmp_path / "x.html").exists()
