"""Exports of a finished run: refused before anything is written, each whole or not there, each measured by its consumer."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from axoc_runtime.errors import EXIT_ENVIRONMENT, EXIT_EXPORT, EXIT_INPUTS, RuntimeFailure
from axoc_runtime.exports.base import NONE
from axoc_runtime.exports.one import EXPORTS, PROBE_BYTES, Outcome, export_one
from axoc_runtime.exports.report import show, write_report
from axoc_runtime.exports.request import Request, missing_packages, read_requests
from axoc_runtime.exports.source import Source, require_finished, vocabulary_refusal
from axoc_runtime.failure import disk
from axoc_runtime.files import locked

GIB: Final = 1 << 30
LOCK: Final = ".exports.lock"
"""In the run's folder."""
WORK: Final = ".work-"
EXTRA_FIX: Final = (
    "pip install 'axoc-runtime[export]' (for mlx: 'axoc-runtime[mlx]'), or plan with these formats in the spec: its lock has "
    "all but mlx's"
)


def export(run: Path, formats: Sequence[str], quantization: str = NONE) -> None:
    """Writes ``<run>/exports/<format>/`` for each format, exports.json and a table.

    Raises RuntimeFailure: 1 for formats that there are not or that this model cannot be written in, 11 for consumers that are
    not installed, both before anything is written; 18 where one could not be made, when all others are done.
    """
    requests = read_requests(formats, quantization)
    require_packages(requests)
    require_finished(run)
    (run / EXPORTS).mkdir(parents=True, exist_ok=True)
    with locked(run / LOCK):
        _sweep(run / EXPORTS)
        with tempfile.TemporaryDirectory(prefix=WORK, dir=run / EXPORTS) as work:
            source = Source(run=run, work=Path(work))
            refuse(source, requests)
            with _told_of_a_full_disk(run, requests):
                outcomes = _all(source, requests)
    show(run, outcomes)
    if failed := [o for o in outcomes if o.error is not None]:
        lines = "\n".join(f"  {o.name}: {o.error}" + (f"\n    fix: {o.fix}" if o.fix else "") for o in failed)
        message = f"{len(failed)} of {len(outcomes)} exports were not made, and nothing of them is left:\n{lines}"
        raise RuntimeFailure(
            message, EXIT_EXPORT, f"then: axoc export {run.name} --formats {','.join(o.name for o in failed)}"
        )


@contextmanager
def _told_of_a_full_disk(run: Path, requests: Sequence[Request]) -> Iterator[None]:
    """What is not one format's: the run is trained, and nobody needs to resume it."""
    try:
        yield
    except OSError as error:
        if not disk.full(error):
            raise
        fix = f"free some, then: axoc export {run.name} --formats {','.join(r.name for r in requests)}"
        message = f"the disk is full: {run / EXPORTS}; formats that have a folder there are whole"
        raise RuntimeFailure(message, EXIT_EXPORT, fix) from error


def _sweep(folder: Path) -> None:
    """What an export left that was killed: one at a time writes here, so that none of it is in use."""
    for half in (*folder.glob(f"{WORK}*"), *folder.glob(".*.new-*")):
        shutil.rmtree(half, ignore_errors=True)


def require_packages(requests: Sequence[Request]) -> None:
    if missing := missing_packages(requests):
        told = "; ".join(f"{name} needs {', '.join(packages)}" for name, packages in missing.items())
        raise RuntimeFailure(f"not installed: {told}", EXIT_ENVIRONMENT, EXTRA_FIX)


def refuse(source: Source, requests: Sequence[Request]) -> None:
    """Everything that cannot be written of this model, at once."""
    if told := vocabulary_refusal(source):
        raise RuntimeFailure(told, EXIT_INPUTS, "put the tokenizer there that the model was trained with")
    reasons = [(r.name, refusal(source, r)) for r in requests]
    problems = [f"  {name}: {reason}" for name, reason in reasons if reason]
    if problems:
        names = ", ".join(name for name, reason in reasons if reason)
        message = "\n".join([f"{source.architecture} cannot be exported so:", *problems])
        raise RuntimeFailure(message, EXIT_INPUTS, f"take {names} out of the formats")


SEEING: Final = "safetensors"
"""The format that holds a model that sees, and what reads its input."""


def refusal(source: Source, request: Request) -> str | None:
    """Why this model cannot be written so."""
    if request.exporter.causal_only and not source.causal:
        return "it has no vocabulary to predict: a reward model is written as safetensors or pytorch"
    if source.sees and request.name != SEEING:
        return "the part that sees would be left out, or was not tried: a model of rows with images is written as safetensors"
    return request.exporter.refuses(source, request.variant)


def _all(source: Source, requests: Sequence[Request]) -> list[Outcome]:
    from axoc_runtime.exports.measure import reference
    from axoc_runtime.exports.reference import Transformers

    quiet()
    print(f"axoc: exporting {', '.join(r.name for r in requests)}, checked on {source.measured_on}", flush=True)
    found = reference(source, Transformers(source, source.model))
    outcomes: list[Outcome] = []
    for request in requests:
        outcomes.append(export_one(source, request, found, _room(source, request)))
        try:
            write_report(source, outcomes)  # at once: what is whole stays known where the next one is killed
        except OSError:  # of a disk without a byte left: what failed adds no line to it
            if outcomes[-1].error is None:
                raise
    return outcomes


def quiet() -> None:
    """transformers draws a bar for each model that it loads, and a run loads a dozen."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _room(source: Source, request: Request) -> str | None:
    """What is wrong with the disk, before a format is begun."""
    free = shutil.disk_usage(source.run).free
    needed = request.exporter.bytes_needed(source, request.variant)
    if needed <= free:
        return None
    full = "the disk is full: " if free < PROBE_BYTES else ""
    return f"{full}{_size(free)} are free in {source.run / EXPORTS}, and writing it takes {_size(needed)}"


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.1f} MiB"
