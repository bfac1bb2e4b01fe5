"""What `axoc diff` compares: a bundle's folder, a plan.json, or either at a git revision, read without being written out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from axoc import driver
from axoc.emit.manifest import MANIFEST
from axoc.errors import Diagnostic, UserError
from axoc.ir.plan import NoPlan

PLAN: Final = "plan.json"
READ: Final = ("spec.yaml", "spec.lock", "requirements.lock")
"""Files of a bundle whose content is compared line by line or by meaning; so are JSON files under config/."""
SPEC_SUFFIXES: Final = (".yaml", ".yml")
FIX: Final = "name a bundle, a plan.json, a spec, or a git revision as REV or REV:PATH"


@dataclass(frozen=True, kw_only=True)
class Side:
    label: str
    """As it was named."""
    plan: dict[str, Any]
    inventory: str | None
    """None: a plan.json alone, without its bundle."""
    digests: Mapping[str, str]
    """Of the bundle's files, by path."""
    texts: Mapping[str, str]
    """Content of the files that are read: READ, and config/*.json."""


Reader = Callable[[str], str | None]
"""The text of a file beside the plan, by its path; None where there is none."""


def read_side(written: str, bundle: str) -> Side:
    """``bundle``: where a revision's bundle lies, unless the name says so. Raises UserError."""
    path = Path(written)
    if path.is_dir():
        return _side(written, lambda name: _text(path / name))
    if path.is_file():
        return _side(written, lambda name: _text(path) if name == PLAN else None)
    return _side(written, _of_revision(written, bundle))


def planned_side(spec: Path, inventory: str | None, bundle: str) -> Side | NoPlan:
    """What a spec gives now, for the other side's inventory; nothing is written. Raises UserError."""
    planned = driver.plan(spec, inventory)
    if isinstance(planned.result, NoPlan):
        return planned.result
    files = {f.path: f.content for f in driver.bundle(planned, Path(bundle)).files}
    return _side(str(spec), lambda name: files[name].decode("utf-8") if name in files else None)


def is_spec(written: str) -> bool:
    return Path(written).suffix in SPEC_SUFFIXES and Path(written).is_file()


def _side(label: str, read: Reader) -> Side:
    plan = _object(read(PLAN), label)
    manifest = _manifest(read(MANIFEST))
    files = dict(manifest.get("files", {}))
    wanted = [*READ, *(name for name in files if name.startswith("config/") and name.endswith(".json"))]
    texts = {name: text for name in wanted if name in files and (text := read(name)) is not None}
    return Side(label=label, plan=plan, inventory=manifest.get("inventory"), digests=files, texts=texts)


def _object(text: str | None, label: str) -> dict[str, Any]:
    if text is None:
        raise UserError(Diagnostic(message=f"{label} holds no {PLAN}", fix=FIX))
    try:
        plan = json.loads(text)
    except ValueError as error:
        raise UserError(Diagnostic(message=f"its {PLAN} cannot be read: {error}", file=label, fix=FIX)) from None
    if not isinstance(plan, dict) or not {"plan", "decisions", "estimate"} <= set(plan):
        raise UserError(Diagnostic(message=f"its {PLAN} is no plan of axoc", file=label, fix=FIX))
    if plan["plan"] is None:
        raise UserError(Diagnostic(message="nothing was planned there: no plan fitted", file=label, fix=FIX))
    return plan


def _manifest(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


# --- git


def _of_revision(written: str, bundle: str) -> Reader:
    """Files of ``REV`` or ``REV:PATH``, where PATH is a bundle or a plan.json, from the working directory or the top."""
    revision, _, path = written.partition(":")
    path = path or bundle
    if revision.startswith("-") or _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}") is None:
        raise UserError(Diagnostic(message=f"{written} is neither a path nor a git revision", fix=FIX))
    if path.endswith(".json"):
        return lambda name: _shown(revision, path) if name == PLAN else None
    return lambda name: _shown(revision, f"{path.rstrip('/')}/{name}")


def _shown(revision: str, path: str) -> str | None:
    below = _git("show", f"{revision}:./{path}")
    return below if below is not None else _git("show", f"{revision}:{path}")


def _git(*arguments: str) -> str | None:
    """What git prints; None where it fails."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, stdin=subprocess.DEVNULL)
    except OSError:
        raise UserError(Diagnostic(message="git is not installed, so no revision can be read", fix=FIX)) from None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
