"""One file put on disk whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from axoc.errors import Diagnostic, UserError


def write_text(path: Path, text: str) -> None:
    """Writes beside ``path``, then renames: a full disk or an interrupt leaves what was there. Raises UserError."""
    try:
        if path.exists() and not path.is_file():  # a device or a pipe has no place beside it; a folder refuses
            path.write_text(text, encoding="utf-8")
        else:
            _replace(path.resolve(), text)  # a symlink stays, and its file is replaced
    except OSError as error:
        raise UserError(Diagnostic(message=f"cannot write: {error.strerror}", file=str(path))) from None


def _replace(target: Path, text: str) -> None:
    fresh = target.with_name(f".{target.name}.axoc-new-{os.getpid()}")
    try:
        fresh.write_text(text, encoding="utf-8")
        if target.exists():
            fresh.chmod(target.stat().st_mode & 0o7777)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
