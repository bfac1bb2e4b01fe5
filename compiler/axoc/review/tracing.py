"""The trace of a plan, run by another Python: the compiler never imports torch.

That Python is started before the plan is made: it imports torch meanwhile, which takes longer.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from axoc.emit import sources
from axoc.errors import Diagnostic, UserError
from axoc.ir.bundle import BundleFile
from axoc.units import duration

TIMEOUT_SECONDS: Final = 1800
RUNTIME_ENVIRONMENT_EXIT: Final = 11
"""docs/job.md: the environment lacks what the runtime needs."""


class Tracer:
    """A process that waits to be told that its files are there."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder, self.python = folder, python
        self.process: subprocess.Popen[str] | None = None
        self.problem: OSError | None = None
        self._start([python, "-m", "axoc_runtime.trace", "job.json", "--config", "config.json", "--when-told"])

    def _start(self, command: list[str]) -> None:
        environment = os.environ | {"PYTHONPATH": str(self.folder / "runtime"), "PYTHONDONTWRITEBYTECODE": "1"}
        pipe = subprocess.PIPE
        try:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
            )
        except OSError as error:  # told once the spec's own mistakes were
            self.problem = error

    def run(self, job: str, config: str, more: Sequence[BundleFile] = ()) -> dict[str, Any]:
        """The trace's JSON. ``more``: files that the job names. Raises UserError."""
        write(self.folder, [_text("job.json", job), _text("config.json", config), *more])
        if self.process is None:
            told = self.problem.strerror if self.problem else ""
            message = f"{self.python} cannot be started: {told}"
            raise UserError(Diagnostic(message=message, fix="pass --python with the path of a Python"))
        try:
            out, err = self.process.communicate("\n", timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            raise UserError(Diagnostic(message=f"the trace took longer than {duration(TIMEOUT_SECONDS)}")) from None
        return answer(self.process.returncode, out, err, self.python)

    def close(self) -> None:
        """Ends it where it was not needed."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


@contextmanager
def tracer(python: str) -> Iterator[Tracer]:
    """With the runtime's own sources, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="axoc-verify-") as name:
        write(Path(name), sources.runtime_files())
        made = Tracer(Path(name), python)
        try:
            yield made
        finally:
            made.close()


def write(folder: Path, files: Sequence[BundleFile]) -> None:
    for file in files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)


def _text(path: str, text: str) -> BundleFile:
    return BundleFile(path=path, content=text.encode())


def answer(code: int, out: str, err: str, python: str) -> dict[str, Any]:
    """The trace's JSON. Raises UserError with the reason it gave."""
    if code == 0:
        value: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return value
    said = err.strip().splitlines() or [f"exit code {code}"]
    if code == RUNTIME_ENVIRONMENT_EXIT or "ModuleNotFoundError" in said[-1]:
        message = f"{python} lacks what a trace runs: {said[-1] if 'Error' in said[-1] else said[0]}"
        fix = "pass --python with the Python of a bundle's environment (no GPU is needed)"
        raise UserError(Diagnostic(message=message, expected="torch, transformers, peft and accelerate", fix=fix))
    reasons = [line for line in said if line.startswith(("axoc: ", "  fix: "))] or said[-1:]
    told = "; ".join(line.removeprefix("axoc: ").strip() for line in reasons)
    raise UserError(Diagnostic(message=f"the trace failed: {told}"))
