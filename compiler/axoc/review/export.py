"""`axoc export`: the runtime's own sources, run by a Python that has the consumers, on a finished run."""

from __future__ import annotations

import os
import subprocess
import tempfile
from difflib import get_close_matches
from pathlib import Path

from axoc.emit import sources
from axoc.errors import Diagnostic, UserError
from axoc.facts.exports import FORMATS, NONE, plugin_formats


def export(run: Path, formats: str, quantization: str, python: str) -> int:
    """The runtime's exit code; it says itself what it does. Raises UserError for what can be said without it."""
    names = tuple(n.strip() for n in formats.split(",") if n.strip())
    _check(run, names)
    arguments = [str(run.resolve()), "--formats", ",".join(names), "--quantization", quantization]
    return run_runtime("axoc_runtime.exports", arguments, python)


def run_runtime(module: str, arguments: list[str], python: str) -> int:
    """The exit code of a module of the runtime's own sources, run by ``python``. Raises UserError where that is none."""
    with tempfile.TemporaryDirectory(prefix="axoc-runtime-") as name:
        folder = Path(name)
        for file in sources.runtime_files():
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
        return _run([python, "-m", module, *arguments], folder)


def _check(run: Path, names: tuple[str, ...]) -> None:
    """Every problem at once."""
    problems = [] if run.is_dir() else [_no_run(run)]
    if not names:
        problems.append(Diagnostic(message="--formats names no format", expected=", ".join(FORMATS)))
    problems += [d for n in names if (d := _problem(n)) is not None]
    if problems:
        raise UserError(*problems)


def _no_run(run: Path) -> Diagnostic:
    fix = "name the output folder of a finished run, the output_dir of its spec"
    return Diagnostic(message="no such run", file=str(run), fix=fix)


def _problem(written: str) -> Diagnostic | None:
    name, colon, quantization = written.partition(":")
    names = [*FORMATS, *sorted(plugin_formats())]
    if name not in names:
        close = get_close_matches(name, names, n=1)
        fix = f"did you mean {close[0]}?" if close else "take one of these"
        return Diagnostic(message=f"{name!r} is no export format", expected=", ".join(names), fix=fix)
    if colon and name in FORMATS and quantization not in (NONE, *FORMATS[name].quantizations):
        has = ", ".join(FORMATS[name].quantizations) or NONE
        return Diagnostic(message=f"{name} has no quantization {quantization!r}", expected=has)
    return None


def _run(command: list[str], folder: Path) -> int:
    path = os.pathsep.join([str(folder / "runtime"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    try:
        return subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL).returncode
    except OSError as error:
        message = f"{command[0]} cannot be started: {error.strerror}"
        raise UserError(Diagnostic(message=message, fix="pass --python with the path of a Python")) from None
