"""Slurm: a batch script whose step runs launch.sh once on each node, and that goes back into the queue by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from axoc.emit.placement import placement
from axoc.emit.targets.base import Target, node_of, packaged, text_file
from axoc.emit.targets.names import plain_name
from axoc.errors import Diagnostic, UserError
from axoc.ir.bundle import BundleFile
from axoc.ir.plan import Plan
from axoc.ir.request import TargetRequest

SCRIPT: Final = "config/slurm.sbatch"
WARNING_SECONDS: Final = 120
"""Before the time limit, at which the job goes back into the queue."""
SECONDS_PER_HOUR: Final = 3600


class Slurm(Target):
    """Settings are #SBATCH lines; the rest of the script is the same for every plan."""

    def shell(self) -> str:
        return packaged("slurm.sh")

    def files(self, plan: Plan) -> list[BundleFile]:
        """Raises UserError for an option whose value is no text, number or flag."""
        lines = "".join(f"#SBATCH --{name}{_value(value)}\n" for name, value in _options(plan))
        wanted = plan.request.target
        figures = f"RETRIES={wanted.retries} RESTART={wanted.restart}\n"
        body = packaged("slurm.sbatch").replace("@FIGURES@\n", figures)
        return [text_file(SCRIPT, "#!/usr/bin/env bash\n" + lines + body)]


def _options(plan: Plan) -> Iterator[tuple[str, str | int | None]]:
    """Long options and their values; None for a flag."""
    place, node, wanted = placement(plan), node_of(plan), plan.request.target
    yield "job-name", plain_name(plan.request.name)
    yield "nodes", place.nodes
    yield "ntasks-per-node", 1
    yield "cpus-per-task", node.cpus
    yield "mem", f"{node.memory_gib}G"
    if node.gpus:
        yield "gpus-per-node", node.gpus
    yield from _queueing(wanted)
    yield from _restarting(wanted)
    for name, value in sorted(wanted.options.items()):
        yield from _free(name, value)


def _queueing(wanted: TargetRequest) -> Iterator[tuple[str, str | int | None]]:
    for name in ("partition", "account", "qos"):
        if (value := getattr(wanted, name)) is not None:
            yield name, value
    if wanted.time_limit_hours is not None:
        yield "time", _duration(wanted.time_limit_hours)


def _restarting(wanted: TargetRequest) -> Iterator[tuple[str, str | int | None]]:
    """Output is appended to: a job that starts again would write over what it said before."""
    yield "open-mode", "append"
    yield "signal", f"B:USR1@{WARNING_SECONDS}"
    if wanted.restart == "array":
        yield "array", f"0-{wanted.retries}%1"
        yield "no-requeue", None
        yield "output", "../%x-%A_%a.log"
    else:
        yield "requeue", None
        yield "output", "../%x-%j.log"


def _duration(hours: float) -> str:
    """``days-hours:minutes:seconds``."""
    minutes, seconds = divmod(max(60, round(hours * SECONDS_PER_HOUR)), 60)
    whole_hours, minutes = divmod(minutes, 60)
    return f"{whole_hours // 24}-{whole_hours % 24:02}:{minutes:02}:{seconds:02}"


def _free(name: str, value: Any) -> Iterator[tuple[str, str | int | None]]:
    """true: a flag; false or null: left out."""
    if value is True:
        yield name, None
    elif isinstance(value, (str, int, float)) and value is not False:
        yield name, str(value)
    elif value is not False and value is not None:
        message = f"target.options.{name} is no option of sbatch: a list or a mapping"
        raise UserError(
            Diagnostic(message=message, expected="a text, a number or true", fix="write it as sbatch takes it")
        )


def _value(value: str | int | None) -> str:
    """As sbatch reads its lines: in double quotes nothing but a backslash and the quote itself means anything."""
    if value is None:
        return ""
    text = " ".join(str(value).split())  # a line end would begin a command
    return f"={text}" if text and all(c.isalnum() or c in "._:@%/+,-" for c in text) else '="' + _escaped(text) + '"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
