"""`axoc calibrate`: the runtime's own sources, run by a Python that has torch, measure one machine's accelerator."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from axoc.emit import sources
from axoc.errors import Diagnostic, UserError

RUNTIME_ENVIRONMENT_EXIT: Final = 11
"""docs/job.md: the environment lacks what the runtime needs."""


def calibrate(out: Path, python: str, device: str, check: bool) -> None:
    """Writes the profile to ``out``; progress goes to standard error. Raises UserError."""
    with tempfile.TemporaryDirectory(prefix="axoc-calibrate-") as name:
        folder = Path(name)
        for file in sources.runtime_files():
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
        command = [python, "-m", "axoc_runtime.calibrate", "--out", str(out.resolve()), "--device", device]
        code = _run([*command, "--check"] if check else command, folder)
    if code == RUNTIME_ENVIRONMENT_EXIT:
        fix = "pass --python with the Python of a bundle's environment on the machine that has the GPU"
        raise UserError(Diagnostic(message="this machine cannot be calibrated: see above", fix=fix))
    if code:
        raise UserError(Diagnostic(message=f"the calibration failed with exit code {code}: see above"))


def _run(command: list[str], folder: Path) -> int:
    environment = os.environ | {"PYTHONPATH": str(folder / "runtime"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL).returncode
    except OSError as error:
        message = f"{command[0]} cannot be started: {error.strerror}"
        raise UserError(Diagnostic(message=message, fix="pass --python with the path of a Python")) from None
