"""What hosts are to have in common: where one differs it is named, against what most have, or the first where two differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from statistics import median_low
from typing import Any, Final

from axoc_runtime.errors import EXIT_HOSTS_DIFFER
from axoc_runtime.hosts.meeting import Meeting
from axoc_runtime.preflight.finding import WARNING, Finding
from axoc_runtime.preflight.node import NodeFacts

CLOCK_WARNING_SECONDS: Final = 1.0
"""NTP keeps hosts within milliseconds: so much means that it does not run. Lines of logs are then out of order."""
CLOCK_ERROR_SECONDS: Final = 5.0
"""torchrun's dynamic rendezvous takes a host for dead whose stamps are 15 s old, by another's clock, and tells of life
every 5 s (c10d's keep_alive_interval, and three of them)."""


def compare(nodes: Sequence[NodeFacts], meeting: Meeting) -> Iterator[Finding]:
    yield from _odd(nodes, meeting, lambda n: n.bundle[7:19], "the bundle is {0}…, most others' {1}…", _BUNDLE)
    for name in sorted({name for n in nodes for name in n.versions}):
        told = f"{name} {{0}}, most others' {{1}}"
        yield from _odd(nodes, meeting, lambda n, name=name: n.versions.get(name, "none"), told, _VERSIONS)  # type: ignore[misc]
    yield from _odd(nodes, meeting, lambda n: n.driver or "none", "driver {0}, most others' {1}", _DRIVER, WARNING)
    told = "devices: {0}; most others': {1}"
    yield from _odd(
        nodes, meeting, lambda n: _counted(n.devices), told, "replace this host, or plan for its kind", WARNING
    )


_BUNDLE: Final = "copy the same bundle to every host"
_VERSIONS: Final = "make its environment from the bundle's requirements.lock: launch.sh without --no-install"
_DRIVER: Final = "install the same driver on all hosts"


def _odd(
    nodes: Sequence[NodeFacts],
    meeting: Meeting,
    value_of: Callable[[NodeFacts], Any],
    told: str,
    fix: str,
    code: int = EXIT_HOSTS_DIFFER,
) -> Iterator[Finding]:
    values = [value_of(n) for n in nodes]
    counts = Counter(values)
    usual = max(values, key=lambda v: (counts[v], v == values[0]))
    for node, value in enumerate(values):
        if value != usual:
            yield Finding(code, told.format(value, usual), fix, meeting.named(node))


def _counted(devices: Sequence[str]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in sorted(Counter(devices).items())) or "none"


def compare_clocks(offsets_seconds: Sequence[float], meeting: Meeting) -> Iterator[Finding]:
    """Against the clock in the middle, so that a wrong one of the first host is named too, where there are three."""
    middle = offsets_seconds[0] if len(offsets_seconds) == 2 else median_low(offsets_seconds)
    for node, offset in enumerate(offsets_seconds):
        ahead = offset - middle
        if abs(ahead) > CLOCK_WARNING_SECONDS:
            code = EXIT_HOSTS_DIFFER if abs(ahead) > CLOCK_ERROR_SECONDS else WARNING
            told = f"its clock is {abs(ahead):.1f} s {'ahead' if ahead > 0 else 'behind'}"
            yield Finding(code, told, "let NTP set it (timedatectl, chronyc tracking)", meeting.named(node))


def compare_sight(missing: Sequence[str], folder: str, meeting: Meeting) -> Iterator[Finding]:
    for node, told in enumerate(missing):
        if told:
            fix = "mount one file system there on all hosts, or set output_dir to one that is shared"
            yield Finding(EXIT_HOSTS_DIFFER, f"the output folder {folder} {told}", fix, meeting.named(node))
