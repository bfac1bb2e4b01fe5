"""`axoc quant-profile`: the runtime's own sources, run by a Python that has the quantizers and their consumers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from axoc.errors import Diagnostic, UserError
from axoc.inputs import find, read_bytes
from axoc.review.export import run_runtime
from axoc.spec.load import load_spec

MODULE = "axoc_runtime.quantize.profile"
PATHS = ("output_dir", "data")


def quant_profile(model: str | None, spec: Path | None, python: str, options: Mapping[str, Any]) -> int:
    """The runtime's exit code. ``options``: of the command, by name. Raises UserError for what can be said without it."""
    given = dict(options)
    if spec is not None:
        of_model, data = _of_spec(spec)
        model, given["data"] = model or of_model, given["data"] or data
    if model is None:
        fix = "pass --model FOLDER, or --spec with a spec that has model.id"
        raise UserError(Diagnostic(message="no model is named", fix=fix))
    _check(given["data"])
    arguments = ["--model", str(Path(model).resolve()) if Path(model).is_dir() else model, "--model-name", model]
    for name, value in given.items():
        arguments += _argument(name, value)
    return run_runtime(MODULE, arguments, python)


def _of_spec(spec: Path) -> tuple[str | None, Path | None]:
    """Its model, and its first dataset where that is a file."""
    request = load_spec(read_bytes(spec, "the spec"), str(spec))
    model, data = request.model.id, request.datasets[0].path if request.datasets else None
    folder = None if model is None or request.model.looks_remote else find(model, spec.parent)
    file = None if data is None or "://" in data else find(data, spec.parent)
    return str(folder) if folder is not None and folder.is_dir() else model, file if file and file.is_file() else None


def _check(data: Path | None) -> None:
    if data is not None and not data.is_file():
        raise UserError(Diagnostic(message="no such file", file=str(data), fix="name a text or JSON file"))


def _argument(name: str, value: Any) -> list[str]:
    """The runtime's command line has the same names. It runs elsewhere, so paths are made whole."""
    option = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return []
    if value is True:
        return [option]
    return [option, str(value.resolve() if name in PATHS else value)]
