"""``format`` or ``format:variant``: what is asked for, read once."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.exports.base import NONE, Exporter
from axoc_runtime.exports.registry import exporter, known
from axoc_runtime.job import Job


@dataclass(frozen=True, kw_only=True)
class Request:
    exporter: Exporter
    variant: str

    @property
    def name(self) -> str:
        return self.exporter.name if self.variant == NONE else f"{self.exporter.name}:{self.variant}"

    @property
    def folder(self) -> str:
        return self.name.replace(":", "-")


def read_requests(formats: Sequence[str], quantization: str = NONE) -> tuple[Request, ...]:
    """In order, each once. ``quantization`` is of every format that has it and names no variant itself.

    Raises RuntimeFailure naming every format, variant and quantization that there is not.
    """
    problems: list[str] = []
    found = [r for written in formats if (r := _request(written, quantization, problems)) is not None]
    if quantization != NONE and formats and not any(r.variant == quantization for r in found) and not problems:
        have = sorted({v for r in found for v in r.exporter.variants if v != NONE})
        problems.append(
            f"no format asked for has the quantization {quantization}; they have {', '.join(have) or 'none'}"
        )
    if problems:
        raise RuntimeFailure("; ".join(problems), EXIT_INPUTS, "formats are written format or format:quantization")
    return tuple({r.name: r for r in found}.values())


def _request(written: str, quantization: str, problems: list[str]) -> Request | None:
    name, colon, variant = written.partition(":")
    if name not in known():
        problems.append(f"there is no export format {name!r}; there are {', '.join(known())}")
        return None
    made = exporter(name)
    if not colon:
        return Request(exporter=made, variant=quantization if quantization in made.variants else NONE)
    if variant not in made.variants:
        problems.append(f"{name} has no quantization {variant!r}; it has {', '.join(made.variants)}")
        return None
    return Request(exporter=made, variant=variant)


def requests_of(job: Job) -> tuple[Request, ...]:
    return read_requests(job.export.formats, job.export.quantization)


def missing_packages(requests: Sequence[Request]) -> dict[str, list[str]]:
    """Format -> import names that are not here."""
    needed = {r.name: r.exporter.packages_of(r.variant) for r in requests}
    absent = {n: [p for p in packages if importlib.util.find_spec(p) is None] for n, packages in needed.items()}
    return {name: packages for name, packages in absent.items() if packages}
