"""`axoc lock`: resolves what is not reproducible by nature, once, into a file that is committed beside the spec."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from axoc.errors import Diagnostic, UserError
from axoc.facts.lengths import counted, read_histogram
from axoc.facts.lock import lock_text, parse_lock, resolve
from axoc.files import write_text
from axoc.inputs import find, lock_path, looks_local, read_bytes
from axoc.ir.facts import DataFacts, RowLengths
from axoc.spec.load import load_spec


def lock_spec(spec_path: Path, lengths: Path | None = None) -> Path:
    """Counts rows and digests of local datasets. Returns the lock's path. Raises UserError.

    ``lengths``: a preparation's lengths.json, or its folder; without it the lengths of data that is what it was are kept.
    """
    request = load_spec(read_bytes(spec_path, "the spec"), str(spec_path))
    folder = spec_path.parent
    absent = [d.path for d in request.datasets if d.path and looks_local(d.path) and not find(d.path, folder).exists()]
    if absent:
        fix = "check dataset.path; relative paths count from the working directory"
        raise UserError(*(Diagnostic(message=f"no data at {p}", file=str(spec_path), fix=fix) for p in absent))
    data = resolve(request.datasets, lambda path: find(path, spec_path.parent))
    path = lock_path(spec_path)
    known = None if lengths is None else counted(read_histogram(lengths))
    data = tuple(replace(d, lengths=known or _kept(path, d)) for d in data)
    write_text(path, lock_text(request.model.id, request.model.revision, data))
    return path


def _kept(path: Path, data: DataFacts) -> RowLengths | None:
    """What the lock that is there says of the same data."""
    if data.sha256 is None or not path.is_file():
        return None
    try:
        before = parse_lock(read_bytes(path, "the lock").decode("utf-8", "replace"))
    except UserError:  # it is written anew
        return None
    return next((d.lengths for d in before if (d.path, d.sha256) == (data.path, data.sha256)), None)
