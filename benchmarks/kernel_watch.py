"""What kernel_times.py hangs into the Trainer: marks between a step's phases, and a recording of one step's kernels."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any, Final

from kernel_trace import recorded
from transformers import TrainerCallback

MARK_CYCLES: Final = 3000
"""Of a kernel that does nothing, which marks a phase's begin among the recorded ones."""


class Watch(TrainerCallback):
    """Steps: some that settle, some by the clock, one whose kernels are recorded, the rest with waiting after each phase."""

    def __init__(self, device: str, trace: Path, settling: int, timed: int) -> None:
        self.device, self.trace = device, trace
        self.first, self.recorded = settling, settling + timed
        self.index, self.kind = -1, "settling"
        self.walls: list[float] = []
        self.host: dict[str, list[float]] = {}
        self.waited: dict[str, list[float]] = {}
        self.marks: list[list[tuple[str, Any]]] = []
        self.launching: list[dict[str, float]] = []
        self.compilations: list[Any] = []
        self.gpu: dict[str, Any] = {}
        self.kernels: dict[str, Any] = {}
        self.named: list[str] = []

    def over(self, trainer: Any) -> None:
        trainer.add_callback(self)
        self._wrap(trainer, "compute_loss", "forward")
        self._wrap(trainer.accelerator, "backward", "backward")

    def _wrap(self, owner: Any, name: str, phase: str) -> None:
        run = getattr(owner, name)

        def marked(*args: Any, **kwargs: Any) -> Any:
            self.mark(phase)
            began = time.perf_counter()
            result = run(*args, **kwargs)
            self.note(phase, time.perf_counter() - began, began)
            self.mark("optimizer" if phase == "backward" else "between")
            return result

        setattr(owner, name, marked)

    def mark(self, name: str) -> None:
        """Where a phase begins, on the device: of steps by the clock an event, of the recorded one a kernel."""
        if self.kind == "waiting":
            self.synchronize()
        if self.device != "cuda":
            return
        import torch

        if self.kind == "timed":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self.marks[-1].append((name, event))
        if self.kind == "recorded":
            self.named.append(name)
            torch.cuda._sleep(MARK_CYCLES)  # type: ignore[no-untyped-call]

    def note(self, phase: str, seconds: float, began: float) -> None:
        """``seconds``: until the call returned."""
        if self.kind == "waiting":
            self.host.setdefault(phase, []).append(seconds)
            self.synchronize()
            self.waited.setdefault(phase, []).append(time.perf_counter() - began)
        if self.kind == "timed":
            self.launching[-1][phase] = self.launching[-1].get(phase, 0.0) + seconds

    def short_pass(self, *, waits: bool) -> None:
        self.synchronize()
        self.kind = "waiting" if waits else "settling"

    def synchronize(self) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    # --- the Trainer's own marks

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.index += 1
        self.synchronize()
        if self.index == self.first:
            self.kind = "timed"
            self._begin_sensing()
        if self.index == self.recorded:
            self.kind = "recorded"
            self._begin_recording()
        if self.index > self.recorded:
            self.kind = "waiting"
        self.marks.append([])
        self.launching.append({})
        self.began = time.perf_counter()
        self.mark("begin")

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        launched = time.perf_counter() - self.began
        self.mark("end")
        self.synchronize()
        self.walls.append(time.perf_counter() - self.began)
        self.launching[-1]["until the end"] = launched
        self.compilations.append(compiled())
        if self.index == self.recorded - 1:
            self.gpu = self.sensors.stop()
        if self.kind == "recorded":
            self._end_recording()

    def _begin_sensing(self) -> None:
        from kernel_times import Sensors

        self.sensors = Sensors()

    def _begin_recording(self) -> None:
        from torch.profiler import ProfilerActivity, profile

        cuda = self.device == "cuda"
        self.profiler = profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU])
        self.profiler.__enter__()

    def _end_recording(self) -> None:
        self.profiler.__exit__(None, None, None)
        self.profiler.export_chrome_trace(str(self.trace))
        self.kernels = recorded(json.loads(self.trace.read_text()), self.named)
        self.trace.unlink()

    # --- what came of it

    def found(self) -> dict[str, Any]:
        """Seconds of a whole step: medians over the steps by the clock."""
        timed = range(self.first, self.recorded)
        device = [between(self.marks[i]) for i in timed]
        walls = [self.walls[i] for i in timed]
        steps = max(len(self.walls) - self.recorded - 1, 1)
        return {
            "step_median_s": statistics.median(walls),
            "wall_ms": [round(1e3 * w, 1) for w in self.walls],
            "phases_device_s": middle(device),
            "phases_host_s": middle([self.launching[i] for i in timed]),
            "phases_launched_alone_s": {k: sum(v) / steps for k, v in self.host.items()},
            "phases_waited_s": {k: sum(v) / steps for k, v in self.waited.items()},
            **self.kernels,
        }


def middle(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row.get(key, 0.0) for row in rows) for key in (rows[0] if rows else {})}


def between(marks: list[tuple[str, Any]]) -> dict[str, float]:
    """Device seconds from each mark to the next, by the first one's name."""
    found: dict[str, float] = {}
    for (name, event), (_, after) in itertools.pairwise(marks):
        found[name] = found.get(name, 0.0) + event.elapsed_time(after) / 1e3
    return found


def compiled() -> list[Any]:
    """Since the last call: how many graphs were compiled, in how many seconds, and the first reasons to do it again."""
    import sys

    if "torch._dynamo.utils" not in sys.modules:
        return []
    from torch._dynamo.utils import clear_compilation_metrics, get_compilation_metrics

    metrics = get_compilation_metrics()
    clear_compilation_metrics()
    if not metrics:
        return []
    seconds = sum((getattr(m, "duration_us", None) or 0) / 1e6 for m in metrics)
    reasons = [str(getattr(m, "recompile_reason", ""))[:160] for m in metrics if getattr(m, "recompile_reason", None)]
    return [len(metrics), round(seconds, 2), reasons[:2]]
