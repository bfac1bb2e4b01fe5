"""`axoc lock`: resolves what is not reproducible by nature, once, into a file that is committed beside the spec."""

from __future__ import annotations

from pathlib import Path

from axoc.errors import Diagnostic, UserError
from axoc.facts.lock import lock_text, resolve
from axoc.inputs import find, lock_path, looks_local, read_bytes
from axoc.spec.load import load_spec


def lock_spec(spec_path: Path) -> Path:
    """Counts rows and digests of local datasets. Returns the lock's path. Raises UserError."""
    request = load_spec(read_bytes(spec_path, "the spec"), str(spec_path))
    folder = spec_path.parent
    absent = [d.path for d in request.datasets if d.path and looks_local(d.path) and not find(d.path, folder).exists()]
    if absent:
        fix = "check dataset.path; relative paths count from the working directory"
        raise UserError(*(Diagnostic(message=f"no data at {p}", file=str(spec_path), fix=fix) for p in absent))
    data = resolve(request.datasets, lambda path: find(path, spec_path.parent))
    path = lock_path(spec_path)
    path.write_text(lock_text(request.model.id, request.model.revision, data), encoding="utf-8")
    return path
