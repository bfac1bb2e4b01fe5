"""ConfigReader: typed access to a config.json that collects every problem before it reports any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from axoc.errors import Diagnostic, UserError

_SHOWN_CHARACTERS = 60


class ConfigReader:
    """Reads fields of one config.json. After a problem it hands out a harmless value and goes on; see ``finish``."""

    def __init__(self, config: Mapping[str, Any], file: str | None, prefix: str = "") -> None:
        self.config = config
        self.file = file
        self.prefix = prefix
        self.problems: list[Diagnostic] = []

    def has(self, name: str) -> bool:
        """True where the field is there and not null."""
        return self.config.get(name) is not None

    def count(self, name: str, default: int | None = None, *, minimum: int = 1) -> int:
        """A whole number of at least ``minimum``; required where ``default`` is None."""
        value = self.config.get(name)
        if value is None:
            return self._missing(name) if default is None else default
        return self._checked_count(name, value, minimum)

    def optional_count(self, name: str) -> int | None:
        """A positive whole number, or None where the field is absent or null."""
        return self._checked_count(name, self.config[name], 1) if self.has(name) else None

    def flag(self, name: str, default: bool) -> bool:
        value = self.config.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problem(name, value, "true or false")
            return default
        return value

    def text(self, name: str, default: str) -> str:
        value = self.config.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            self.problem(name, value, "text")
            return default
        return value

    def number(self, name: str, default: float | None) -> float | None:
        """A number, or None where it is null; ``default`` where it is absent."""
        value = self.config.get(name, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.problem(name, value, "a number")
            return default
        return float(value)

    def items(self, name: str) -> Sequence[Any] | None:
        """A list, or None where the field is absent or null."""
        value = self.config.get(name)
        if value is None or isinstance(value, list):
            return value
        self.problem(name, value, "a list")
        return None

    def problem(self, name: str, value: object, expected: str) -> None:
        shown = repr(value)[:_SHOWN_CHARACTERS]
        self.reject(f"{self.prefix}{name} is {shown}", expected=expected)

    def reject(self, message: str, *, expected: str | None = None, fix: str | None = None) -> None:
        self.problems.append(Diagnostic(message=message, file=self.file, expected=expected, fix=fix))

    def finish(self) -> None:
        """Raises UserError with every problem found so far, each once however often its field was read."""
        if self.problems:
            raise UserError(*dict.fromkeys(self.problems))

    def _missing(self, name: str) -> int:
        self.reject(
            f"{self.prefix}{name} is missing",
            expected="a whole number",
            fix="use the config.json that was published with the model",
        )
        return 1

    def _checked_count(self, name: str, value: object, minimum: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            self.problem(name, value, f"a whole number, {minimum} or more")
            return max(minimum, 1)
        return value
