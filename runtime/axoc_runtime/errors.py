"""Failures a user can act on, each with its exit code (docs/job.md)."""

from __future__ import annotations

from typing import Any, Final

EXIT_INPUTS: Final = 1
EXIT_ENVIRONMENT: Final = 11
EXIT_PREFLIGHT: Final = 12
EXIT_DATA: Final = 13
EXIT_TRAINING: Final = 14
EXIT_OUT_OF_MEMORY: Final = 15
EXIT_NOT_AS_PLANNED: Final = 16
EXIT_UPLOAD: Final = 17
EXIT_EXPORT: Final = 18
EXIT_HOSTS_DIFFER: Final = 19
EXIT_NETWORK: Final = 20
EXIT_HOST: Final = 21
EXIT_SLOW: Final = 22
EXIT_INTERRUPTED: Final = 130


class RuntimeFailure(Exception):
    """What is wrong, with the exit code and the smallest fix. ``everywhere``: all ranks find it, and one is to tell it."""

    def __init__(self, message: str, exit_code: int, fix: str | None = None, *, everywhere: bool | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.fix = fix
        self.everywhere = exit_code in (EXIT_INPUTS, EXIT_DATA) if everywhere is None else everywhere

    def __reduce__(self) -> Any:
        """From a worker process to the one that waits for it."""
        return type(self), (str(self), self.exit_code, self.fix), self.__dict__

    def render(self) -> str:
        return str(self) if self.fix is None else f"{self}\n  fix: {self.fix}"
