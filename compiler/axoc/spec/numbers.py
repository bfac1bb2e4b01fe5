"""Field types of numbers: each reads a scalar strictly and says, in its own words, what it expected."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import core_schema

from axoc.spec.problems import wrong
from axoc.spec.scalars import Plain, boolean, is_null, is_octal_or_padded, number, show

LARGEST: Final = 2**31 - 1
"""Of what is counted. It keeps all arithmetic after it far from overflow."""


class Reader:
    """Metadata of an Annotated type: how a value is read, and what JSON Schema says of it."""

    def read(self, value: Any) -> Any:
        """The checked value. Raises ``wrong``."""
        raise NotImplementedError

    def json(self) -> dict[str, Any]:
        raise NotImplementedError

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return self.json()


@dataclass(frozen=True, kw_only=True)
class Number(Reader):
    """A finite number, in JSON too."""

    minimum: float = 0.0
    maximum: float = float(LARGEST)
    open_minimum: bool = False
    """The minimum itself is not allowed."""
    open_maximum: bool = False
    words: tuple[str, ...] = ()
    """Words allowed instead, e.g. ``auto``; ``null`` among them allows nothing at all."""

    kind: str = field(default="number", init=False)

    def read(self, value: Any) -> Any:
        if is_null(value) and "null" in self.words:
            return None
        if isinstance(value, str) and value in self.words:
            return str(value)
        found = number(value)
        if found is None or not self.allows(found):
            raise wrong(f"is {show(value)}", expected=self.expected(), fix=_fix(value))
        return self.convert(found)

    def allows(self, found: int | float) -> bool:
        above = found > self.minimum if self.open_minimum else found >= self.minimum
        below = found < self.maximum if self.open_maximum else found <= self.maximum
        return above and below  # both are false of NaN

    def convert(self, found: int | float) -> int | float:
        return float(found)

    def expected(self) -> str:
        low = f" above {self.minimum:g}" if self.open_minimum else f", {self.minimum:g} or more"
        high = "" if self.maximum >= LARGEST else f", {'below' if self.open_maximum else 'at most'} {self.maximum:g}"
        return ", or ".join([f"a {self.kind}{low}{high}", *self.words])

    def json(self) -> dict[str, Any]:
        low = "exclusiveMinimum" if self.open_minimum else "minimum"
        high = "exclusiveMaximum" if self.open_maximum else "maximum"
        plain = {"type": self._json_type(), low: self.minimum, high: self.maximum}
        if not self.words:
            return plain
        words = [w for w in self.words if w != "null"]
        others: list[dict[str, Any]] = [{"enum": words}] if words else []
        return {"anyOf": [plain, *others, *([{"type": "null"}] if "null" in self.words else [])]}

    def _json_type(self) -> str:
        return "number"


@dataclass(frozen=True, kw_only=True)
class Whole(Number):
    """A whole number: 1.0 and 1e3 are whole too."""

    minimum: int = 1
    maximum: int = LARGEST
    kind: str = field(default="whole number", init=False)

    def allows(self, found: int | float) -> bool:
        return super().allows(found) and found == int(found)

    def convert(self, found: int | float) -> int:
        return int(found)

    def _json_type(self) -> str:
        return "integer"


def _fix(value: object) -> str | None:
    """Spellings that mean one number to one reader of YAML and another to the next."""
    text = str(value)
    if isinstance(value, Plain) and is_octal_or_padded(text):
        return f"write {int(text)} without leading zeros"
    if isinstance(value, Plain) and text.count(":") == 1 and text.replace(":", "").isdecimal():
        minutes, seconds = text.split(":")
        return f"write {int(minutes[:9] or 0) * 60 + int(seconds[:9] or 0)}, if that is meant"
    if isinstance(value, str) and not isinstance(value, Plain) and number(Plain(value)) is not None:
        return f"remove the quotes: {value}"
    if isinstance(value, Plain) and "," in text and number(Plain(text.replace(",", ""))) is not None:
        return f"write {text.replace(',', '')}"
    return "remove this line for the default" if is_null(value) or boolean(value) is not None else None
