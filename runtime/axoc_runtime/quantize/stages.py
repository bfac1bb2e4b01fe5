"""The stages of a method, each a process: what it says goes to a log, how far it is to the terminal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from axoc_runtime.exports.base import NONE
from axoc_runtime.quantize.methods import Method
from axoc_runtime.quantize.settings import Settings
from axoc_runtime.quantize.worker import MAKE, MEASURE, PROGRESS, folder_of

ENDING_SECONDS = 10
WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Of OpenMP's threads while a model is quantized, in many small operations: where another process wants a core, threads that
wait by spinning took 14 times as long. What is measured runs as a user would run it."""


class Stages:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.output = Path(settings.output)
        self.live = sys.stdout.isatty()

    def run(self, method: Method, title: str) -> dict[str, Any]:
        """``made`` and ``measured``, or ``error`` and ``fix``; never raises for what a method may run into."""
        log = self.output / "logs" / f"{method.file}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        record: dict[str, Any] = {"made": None, "measured": None, "error": None, "fix": None}
        try:
            for stage, key in ((MAKE, "made"), (MEASURE, "measured")):
                if stage == MAKE and method.variant == NONE:
                    continue
                found = self._stage(stage, method, f"{title}: {'quantizing' if stage == MAKE else 'measuring'}", log)
                if "error" in found:
                    return record | found
                record[key] = found
        finally:
            self._clear(method)
        return record

    def _clear(self, method: Method) -> None:
        """What a worker that was killed left half written too: one profile at a time writes here."""
        if method.variant == NONE:
            return
        folder = folder_of(self.settings, method)
        half = list(folder.parent.glob(f".{folder.name}.new-*"))
        for found in half if self.settings.keep_models else [*half, folder]:
            shutil.rmtree(found, ignore_errors=True)

    def _stage(self, stage: str, method: Method, title: str, log: Path) -> dict[str, Any]:
        began, result = time.monotonic(), self.output / ".work" / "result.json"
        result.unlink(missing_ok=True)
        settings = str(self.output / ".work" / "settings.json")
        command = [sys.executable, "-m", "axoc_runtime.quantize.worker", stage, settings, method.name, str(result)]
        print(f"{title} ...", end="" if self.live else "\n", flush=True)
        code = self._watched(command, title, log, (WAITING if stage == MAKE else {}) | os.environ)
        found = self._result(result, code, log)
        ended = f"failed: {found['error']}" if "error" in found else "done"
        print(f"{self._again()}{title}: {ended} in {time.monotonic() - began:.0f} s", flush=True)
        return found

    def _watched(self, command: list[str], title: str, log: Path, environment: dict[str, str]) -> int:
        """The exit code. An interrupted profile leaves no worker behind."""
        pipe = subprocess.PIPE
        with (
            log.open("a", encoding="utf-8") as kept,
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=pipe,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=environment,
            ) as process,
        ):
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if not line.startswith(PROGRESS):
                        kept.write(line)
                    elif self.live:
                        print(f"{self._again()}{title}: {line.removeprefix(PROGRESS).strip()}", end="", flush=True)
            except BaseException:
                process.terminate()
                try:
                    process.wait(ENDING_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                raise
        return process.returncode

    def _again(self) -> str:
        """To the beginning of the line, which is cleared."""
        return "\r\x1b[K" if self.live else ""

    def _result(self, result: Path, code: int, log: Path) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
            return found
        except (OSError, ValueError):
            pass
        if code == -signal.SIGKILL:
            return {"error": "killed, as the system does where memory ends", "fix": "profile on a larger machine"}
        return {"error": f"its process ended with code {code}", "fix": f"see {log}"}
