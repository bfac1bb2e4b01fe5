"""The one writer: puts a bundle on disk whole or not at all, and tells how a folder differs from a bundle."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Final

from axoc.emit.manifest import MANIFEST, OWNED_FOLDERS
from axoc.errors import Diagnostic, UserError
from axoc.ir.bundle import Bundle

DERIVED: Final = ("__pycache__", ".DS_Store")
"""Made by other programs from what is there; worth nothing, so never in the way."""


def write_bundle(bundle: Bundle, out: Path) -> None:
    """Writes beside ``out``, then swaps: a reader sees the old bundle or the new one, never half of one.

    Raises UserError, having changed nothing, where ``out`` is a file, a folder that is no bundle, a bundle that holds
    files axoc did not write, or where the disk refuses.
    """
    target = out.resolve()  # a symlink to a folder stays, and its folder is replaced
    _refuse_to_destroy(target, out)
    fresh = target.with_name(f".{target.name}.axoc-new-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_files(bundle, fresh)
        _swap(fresh, target)
    except OSError as error:
        raise UserError(Diagnostic(message=f"cannot write the bundle: {error.strerror}", file=str(out))) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def compare_bundle(bundle: Bundle, out: Path) -> list[str]:
    """How the folder ``out`` differs from the bundle: a line a file, sorted by path; empty where it does not."""
    expected = {file.path: file for file in bundle.files}
    drift = {path: f"missing: {path}" for path in expected if not (out / path).is_file()}
    for path, file in expected.items():
        if path in drift:
            continue
        if (out / path).read_bytes() != file.content:
            drift[path] = f"differs: {path}"
        elif file.executable and not os.access(out / path, os.X_OK):
            drift[path] = f"not executable: {path}"
    drift |= {path: f"extra: {path}" for path in _owned(out) - set(expected)}
    return [drift[path] for path in sorted(drift)]


def _write_files(bundle: Bundle, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for file in bundle.files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        if file.executable:
            path.chmod(path.stat().st_mode | 0o111)


def _swap(fresh: Path, target: Path) -> None:
    """Two renames; if the second fails, the first is undone."""
    old = target.with_name(f".{target.name}.axoc-old-{os.getpid()}")
    had_one = target.exists()
    if had_one:
        target.rename(old)
    try:
        fresh.rename(target)
    except OSError:
        if had_one:
            old.rename(target)
        raise
    if had_one:
        shutil.rmtree(old, ignore_errors=True)


def _refuse_to_destroy(target: Path, shown: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise _refusal(shown, "there is a file of this name", "name a folder")
    if not any(target.iterdir()):
        return
    if _listed(target) is None:
        raise _refusal(shown, "this folder is not a bundle, and is not empty", "name a new folder, or empty this one")
    if foreign := sorted(bundle_files(target) - _owned(target)):
        names = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
        raise _refusal(shown, f"this bundle holds files that axoc did not write: {names}", "move them out of it")


def _refusal(shown: Path, message: str, fix: str) -> UserError:
    return UserError(Diagnostic(message=f"not overwritten: {message}", file=str(shown), fix=fix))


def _listed(folder: Path) -> set[str] | None:
    """Paths in the folder's manifest; None where it has no readable one."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return {str(path) for path in files}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _owned(folder: Path) -> set[str]:
    """Files that are axoc's: those of the manifest, and all in its own folders."""
    listed = (_listed(folder) or set()) | {MANIFEST}
    return {p for p in bundle_files(folder) if p in listed or (p.split("/")[0] in OWNED_FOLDERS and "/" in p)}


def bundle_files(folder: Path) -> set[str]:
    """POSIX paths of all that lies in the folder, but for what other programs derive from it."""
    found = (p.relative_to(folder) for p in folder.rglob("*") if not p.is_dir())
    return {p.as_posix() for p in found if not set(p.parts) & set(DERIVED)}
