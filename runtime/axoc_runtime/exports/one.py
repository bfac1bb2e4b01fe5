"""One export: written beside, read back by its consumer, and only then given its name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from axoc_runtime.exports import stopping
from axoc_runtime.exports.base import CannotExport, NotChecked
from axoc_runtime.exports.card import card
from axoc_runtime.exports.measure import Measured, Reference, check, measure
from axoc_runtime.exports.request import Request
from axoc_runtime.exports.source import Source
from axoc_runtime.failure import disk
from axoc_runtime.failure.explain import first_line, out_of_memory
from axoc_runtime.files import whole_folder

EXPORTS: Final = "exports"
PROBE_BYTES: Final = 1 << 20
"""A disk without room for as much is full."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    name: str
    """``format`` or ``format:quantization``."""
    folder: Path | None
    size_bytes: int
    seconds: float
    checked_by: str
    """The consumer and its version, or why there is none."""
    measured: Measured | None
    notes: tuple[str, ...]
    error: str | None = None
    fix: str | None = None


def export_one(source: Source, request: Request, reference: Reference, no_room: str | None) -> Outcome:
    """Never raises for what an export may run into: the others are still to be made. A stop is no such thing."""
    began = time.perf_counter()
    if no_room is not None:
        return failed(request, no_room, "free some disk", began)
    try:
        return _made(source, request, reference, began)
    except CannotExport as error:
        return failed(request, str(error), error.fix, began)
    except Exception as error:  # whatever a library raises; the run's model is whole whatever happens here
        if stopping.asked():
            raise KeyboardInterrupt from error
        return failed(request, *_told(source, error), began)


def _made(source: Source, request: Request, reference: Reference, began: float) -> Outcome:
    target = source.run / EXPORTS / request.folder
    with whole_folder(target) as fresh, _told_of_a_full_disk(fresh):
        notes = request.exporter.write(source, fresh, request.variant)
        consumer = request.exporter.consumer(source, fresh, request.variant)
        measured = None
        if not isinstance(consumer, NotChecked):
            measured = measure(reference, consumer)
            check(measured, request.variant)
        outcome = Outcome(
            name=request.name,
            folder=target,
            size_bytes=sum(f.stat().st_size for f in fresh.rglob("*") if f.is_file()),
            seconds=time.perf_counter() - began,
            checked_by=consumer.reason if isinstance(consumer, NotChecked) else consumer.name,
            measured=measured,
            notes=notes,
        )
        del consumer  # files that are mapped into memory are let go before the folder gets its name
        (fresh / "README.md").write_text(card(source, request, outcome), encoding="utf-8")
    return outcome


@contextmanager
def _told_of_a_full_disk(folder: Path) -> Iterator[None]:
    """Libraries name no cause where a write fails, or find it out when they read: so the disk is asked, before what was
    written is deleted."""
    try:
        yield
    except Exception as error:
        probe = folder / ".probe"
        try:
            probe.write_bytes(bytes(PROBE_BYTES))
        except OSError as full:
            raise full from error
        raise


def failed(request: Request, error: str, fix: str | None, began: float) -> Outcome:
    return Outcome(
        name=request.name,
        folder=None,
        size_bytes=0,
        seconds=time.perf_counter() - began,
        checked_by="",
        measured=None,
        notes=(),
        error=error,
        fix=fix,
    )


def _told(source: Source, error: Exception) -> tuple[str, str | None]:
    if disk.full(error):
        return f"the disk is full: {source.run / EXPORTS}", "free some, and export again"
    if out_of_memory(error):
        return "the memory of this machine is not enough", "export on a larger one: axoc export takes any finished run"
    if isinstance(error, ImportError):
        return (
            f"a package that it needs cannot be imported: {first_line(error)}",
            "install its packages again, or what they lack",
        )
    return f"{type(error).__name__}: {first_line(error)}", None
