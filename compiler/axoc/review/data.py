"""`axoc data check`: the runtime's own sources, run by a Python that has its libraries, look at the rows of a spec.

No plan is made: rows are right or wrong whatever hardware they are trained on.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from axoc.emit import sources
from axoc.emit.job import SCHEMA_VERSION, dataset_dict, tokenizer_dict
from axoc.errors import Diagnostic, UserError
from axoc.facts.vision.rows import with_vision
from axoc.inputs import find, read_bytes, with_template
from axoc.ir.canonical import dumps, to_plain
from axoc.ir.request import PlanRequest
from axoc.spec.load import load_spec

RUNTIME_ENVIRONMENT_EXIT: Final = 11
"""docs/job.md: the environment lacks what the runtime needs."""


def check(spec: Path, report: Path | None, python: str, *, as_json: bool) -> int:
    """0, or 1 where rows or files cannot be used; the runtime has then said which. Raises UserError."""
    request = with_template(load_spec(read_bytes(spec, "the spec"), str(spec)), spec.parent)
    request, _ = with_vision(request, lambda written: find(written, spec.parent))
    _named(request, spec)
    with tempfile.TemporaryDirectory(prefix="axoc-data-") as name:
        folder = Path(name)
        (folder / "data.json").write_text(dumps(data_dict(request)), encoding="utf-8")
        for file in sources.runtime_files():
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
        _install([find(p, spec.parent) for p in request.plugins], folder, python)
        more = ["--json"] if as_json else []
        more += ["--report", str(report.resolve())] if report is not None else []
        command = [python, "-m", "axoc_runtime.datacheck", str(folder / "data.json"), *more]
        code = _run(command, folder).returncode
    if code == RUNTIME_ENVIRONMENT_EXIT:
        fix = "pass --python with the Python of a bundle's environment (no GPU is needed)"
        raise UserError(Diagnostic(message=f"{python} lacks what reading the rows needs: see above", fix=fix))
    return 1 if code else 0


def data_dict(request: PlanRequest) -> dict[str, Any]:
    """What the runtime's datacheck reads: the request's own values. Paths count from the working directory."""
    model, training = request.model, request.training
    return {
        "schema_version": SCHEMA_VERSION,
        "base_dir": str(Path.cwd()),
        "model": {
            "id": model.id,
            "revision": model.revision,
            "tokenizer": tokenizer_dict(request, None),
            "vision": model.vision,
            "trust_remote_code": model.trust_remote_code,
        },
        "datasets": [dataset_dict(d, packing=False) for d in request.datasets],
        "training": {"objective": training.objective, "grpo": to_plain(training.grpo)},
        "output_dir": request.output_dir,
        "logging_level": request.logging_level,
        "plugins": list(request.plugins),
    }


def _named(request: PlanRequest, spec: Path) -> None:
    missing = [i for i, d in enumerate(request.datasets) if d.path is None]
    if missing:
        message = f"dataset[{missing[0]}] names no path: there is nothing to check"
        raise UserError(Diagnostic(message=message, file=str(spec), fix="set dataset.path"))


def _install(plugins: list[Path], folder: Path, python: str) -> None:
    """As launch.sh does, into a folder of its own."""
    if not plugins:
        return
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
    pip += ["--no-index", "--no-build-isolation", "--target", str(folder / "installed")]
    done = _run([*pip, *(str(p.resolve()) for p in plugins)], folder)
    if done.returncode:
        fix = "pip's reason is above; a plugin is a folder with a pyproject.toml"
        raise UserError(Diagnostic(message="the spec's plugins cannot be installed", fix=fix))


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[bytes]:
    path = os.pathsep.join([str(folder / "runtime"), str(folder / "installed")])
    environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    try:
        return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False)
    except OSError as error:
        message = f"{command[0]} cannot be started: {error.strerror}"
        raise UserError(Diagnostic(message=message, fix="pass --python with the path of a Python")) from None
