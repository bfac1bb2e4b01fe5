"""`axoc calibrate --from metrics.json…`: what runs on a machine took against what was predicted, folded into its profile.

Tables say what kernels take; a machine of one's own may run them slower (power limit, cooling), launch them slower (its
processor) and have other links. Those are three numbers, the profile's pace, and each run tells one of them: that of what
it was bound by. Nothing is fitted beyond: what the model has wrong stays in the differences, which become the error band.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from axoc.cost.bands import kind_of
from axoc.cost.meter import PARTS
from axoc.cost.time import HOST
from axoc.errors import Diagnostic, UserError
from axoc.facts.profile import KIND, SCHEMA_VERSION, Pace, parse_profile, profile_values, shipped_profile_text
from axoc.files import write_text
from axoc.inputs import read_bytes

OPTIMIZER: Final = "optimizer"
LINKS: Final = ("exposed communication", "tensor-parallel communication")
FEWEST_STEPS: Final = 8
"""Of a run: the first three are its warm-up."""
FEWEST_RUNS: Final = 3
"""Of a kind, for an error band of their own."""
FILLED: Final = 0.5
"""Share of full batches, from which on a step's seconds are taken to go with its tokens."""
TOLD_LINKS: Final = 0.05
"""Share of a step that is exposed communication, from which on a run tells the links' pace."""
TOLD_HOST: Final = 0.2
"""Share of a step that waits for the host, from which on a run is bound by it and tells its pace: less of it may be what no kernel hides,
the Trainer's walks through the model between two micro-steps."""
PLAUSIBLE: Final = (0.4, 2.5)
"""A pace beyond this is no pace: something else ran on the machine, or the run was not the one that was planned."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run's median step, and what was predicted of it, in seconds at a pace of 1."""

    name: str
    spec_digest: str
    strategy: str
    world_size: int
    kind: str
    """busy | waiting | several"""
    measured: float
    device: float
    """Kernels, of batches as full as they were."""
    waiting: float
    """For the host, beyond the kernels."""
    optimizer: float
    links: float
    other: float

    def seconds(self, pace: Pace) -> float:
        """The step at a pace."""
        device, host = pace.device * self.device, pace.host * (self.device + self.waiting)
        busy = device + pace.host * self.waiting
        micro_steps = max(device, host) if self.bound_by_host else busy
        return micro_steps + pace.device * self.optimizer + pace.links * self.links + self.other

    @property
    def bound_by_host(self) -> bool:
        whole = self.device + self.waiting + self.optimizer + self.links + self.other
        return self.waiting > TOLD_HOST * whole


@dataclass(frozen=True, kw_only=True)
class Folded:
    accelerator: str
    runs: tuple[Run, ...]
    pace: Pace
    bands: dict[str, float]


def fold(metrics: Sequence[Path], base: Path | None, out: Path) -> Folded:
    """Writes the profile ``out``: the tables of ``base``, or of the shipped profile, with all runs so far. Raises UserError."""
    found = [_metrics(path) for path in metrics]
    accelerators = {m["accelerator"] for m in found}
    if len(accelerators) > 1:
        fix = "fold each machine's runs into a profile of its own"
        raise UserError(Diagnostic(message=f"these runs are of {', '.join(sorted(accelerators))}", fix=fix))
    (accelerator,) = accelerators
    values = _base(base, accelerator)
    earlier = [Run(**run) for run in values.get("folded", {}).get("runs", [])]
    new = [run_of(m) for m in found]
    runs = tuple([r for r in earlier if r not in new] + [r for i, r in enumerate(new) if r not in new[:i]])
    pace = paced(runs)
    folded = Folded(accelerator=accelerator, runs=runs, pace=pace, bands=bands(runs))
    values |= {"accelerator": accelerator, "folded": _plain(folded)}
    write_text(out, json.dumps(values, indent=1) + "\n")
    return folded


def paced(runs: Sequence[Run]) -> Pace:
    """The medians, in turn: the device's of runs that keep it busy, the host's of those that wait, then the links'."""
    pace = Pace()
    tells: tuple[tuple[str, Callable[[Run], bool]], ...] = (
        ("device", lambda r: r.kind == "busy"),
        ("host", lambda r: r.kind == "waiting" and r.bound_by_host),
        ("links", lambda r: r.kind == "several" and r.links > TOLD_LINKS * r.seconds(pace)),
    )
    for name, told in tells:
        found = [_pace(run, name, pace) for run in runs if told(run)]
        if found:
            pace = replace(pace, **{name: median(found)})
    return pace


def _pace(run: Run, name: str, pace: Pace) -> float:
    """At which the run would have taken what it took, the other paces as they are: seconds go up with each, in a line."""
    low, high = (run.seconds(replace(pace, **{name: end})) for end in (0.0, 1.0))
    slope = run.seconds(replace(pace, **{name: 2.0})) - high  # beyond where the host is what it waits for
    slope = slope if slope > 0 else high - low
    return 1.0 + (run.measured - high) / slope


def bands(runs: Sequence[Run]) -> dict[str, float]:
    """The largest difference of each kind of run, each predicted at the pace of the others."""
    found = {}
    for kind in sorted({run.kind for run in runs}):
        alike = [run for run in runs if run.kind == kind]
        if len(alike) >= FEWEST_RUNS:
            others = {i: paced([r for r in runs if r is not run]) for i, run in enumerate(alike)}
            found[kind] = max(abs(run.measured / run.seconds(others[i]) - 1) for i, run in enumerate(alike))
    return found


def run_of(metrics: dict[str, Any]) -> Run:
    predicted = metrics["predicted"]
    parts, pace = dict(predicted["step_breakdown"]), Pace(**predicted["pace"])
    fill = metrics["batch_fill"] / predicted.get("batch_fill", 1.0)  # of what was planned with
    step, ranks = predicted["step_seconds"], metrics["world_size"]
    links = sum(parts.pop(name, 0.0) for name in LINKS)
    waiting, optimizer = parts.pop(HOST, 0.0), parts.pop(OPTIMIZER, 0.0)
    device = sum(parts.pop(name, 0.0) for name in PARTS)
    elapsed = device + waiting  # as it was planned, the host's where that was longer
    full = device / pace.device
    kind = kind_of(waiting / step, ranks)
    bound = waiting > TOLD_HOST * step
    return Run(
        name=metrics["name"],
        spec_digest=metrics["spec_digest"],
        strategy=metrics["strategy"],
        world_size=ranks,
        kind=kind,
        measured=metrics["step_seconds"],
        device=full * fill,
        waiting=max(elapsed / pace.host - full * fill, 0.0) if bound else waiting / pace.host,
        optimizer=optimizer / pace.device,
        links=links / pace.links,
        other=sum(parts.values()),
    )


def as_text(folded: Folded, out: Path) -> str:
    """A line a run: measured, predicted at a pace of 1 and at the new one."""
    lines = [f"{'run':<28} {'bound by':<9} {'measured':>10} {'by tables':>16} {'with pace':>16}"]
    for run in folded.runs:
        shown = [f"{s:8.3g} s {run.measured / s - 1:+6.1%}" for s in (run.seconds(Pace()), run.seconds(folded.pace))]
        lines.append(f"{run.name[:28]:<28} {run.kind:<9} {run.measured:8.3g} s {shown[0]:>16} {shown[1]:>16}")
    pace = ", ".join(f"{name} {value:.3f}" for name, value in asdict(folded.pace).items())
    told = ", ".join(f"{kind} ±{share:.1%}" for kind, share in folded.bands.items())
    lines += ["", f"Pace of this {folded.accelerator} (1: as the tables say): {pace}."]
    lines.append(f"Error bands of its own: {told or f'none yet; a kind needs {FEWEST_RUNS} runs'}.")
    lines.append(f"Written: {out}. Name it in an inventory file as `profile: {out.name}` to plan with it.")
    return "\n".join(lines) + "\n"


def _plain(folded: Folded) -> dict[str, Any]:
    return {"pace": asdict(folded.pace), "bands": folded.bands, "runs": [asdict(run) for run in folded.runs]}


def _base(base: Path | None, accelerator: str) -> dict[str, Any]:
    """The profile's object that runs are folded into."""
    text = (
        shipped_profile_text(accelerator)
        if base is None
        else read_bytes(base, "the profile").decode("utf-8", "replace")
    )
    if text is None:
        return {"schema_version": SCHEMA_VERSION, "kind": KIND, "made": "", "source": "runs alone", "tables": {}}
    try:
        parse_profile(accelerator, text)
        return profile_values(text)
    except ValueError as error:
        raise UserError(Diagnostic(message=f"cannot fold into this: {error}", file=str(base))) from None


def _metrics(path: Path) -> dict[str, Any]:
    """A run's metrics.json that can tell a pace. Raises UserError with the reason where it cannot."""
    try:
        found = json.loads(read_bytes(path, "the metrics"))
        planned = found["predicted"]["step_breakdown"] and found["predicted"]["pace"] and found["accelerator"]
    except (ValueError, KeyError, TypeError):
        planned = None
    if not planned:
        fix = "give the metrics.json that a run of this version's bundle left in its output_dir"
        raise UserError(Diagnostic(message="not the metrics of a run", file=str(path), fix=fix))
    reason = _unusable(found)
    if reason is not None:
        raise UserError(Diagnostic(message=reason, file=str(path), fix="leave this run out"))
    return dict(found)


def _unusable(metrics: dict[str, Any]) -> str | None:
    if metrics["steps_this_run"] < FEWEST_STEPS or not metrics["step_seconds"]:
        return f"{metrics['steps_this_run']} steps are too few: the first ones are slow, so {FEWEST_STEPS} are needed"
    fill = metrics["batch_fill"]
    fill = None if fill is None else fill / metrics["predicted"].get("batch_fill", 1.0)
    if fill is None or fill < FILLED:
        share = "unknown" if fill is None else f"{fill:.0%}"
        return f"its batches were {share} of what was planned with, and {FILLED:.0%} is the least that tells"
    ratio = metrics["step_seconds"] / metrics["predicted"]["step_seconds"]
    if not PLAUSIBLE[0] <= ratio <= PLAUSIBLE[1]:
        return f"a step took {ratio:.2g} times what was predicted, which no pace explains: did anything else run there?"
    return None
