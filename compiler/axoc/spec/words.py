"""Field types of text: one of some words, yes or no, free text."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from axoc.spec.hints import word_fix
from axoc.spec.numbers import Reader
from axoc.spec.problems import listed, wrong
from axoc.spec.scalars import Plain, boolean, core, is_null, show

LONGEST_LINE: Final = 4096
"""Characters: more than any path or name a system takes."""
_BIDI: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They make a reviewer see another text than the machine."""
_LINE_ENDS: Final = frozenset("\n\t")


@dataclass(frozen=True)
class Words(Reader):
    """One of these words."""

    words: tuple[str, ...]
    hints: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Words of other tools (lower case) and the one to use here, or a whole sentence."""
    any_case: bool = False

    def read(self, value: Any) -> Any:
        text = str(value) if isinstance(value, (str, int, float)) else ""
        if text in self.words:
            return text
        folded = {word.lower(): word for word in self.words} if self.any_case else {}
        if text.lower() in folded:
            return folded[text.lower()]
        fix = word_fix("null" if is_null(value) else text, self.words, dict(self.hints))
        raise wrong(f"is {show(value)}", expected=listed(self.words), fix=fix or self._empty_fix(value))

    def json(self) -> dict[str, Any]:
        lower = [w.lower() for w in self.words if self.any_case]
        return {"enum": [*self.words, *(w for w in lower if w not in self.words)]}

    def _empty_fix(self, value: object) -> str | None:
        return "remove this line for the default" if is_null(value) else None


@dataclass(frozen=True)
class Flag(Reader):
    """True or false, also as yes, no, on, off; with ``auto`` the planner may choose."""

    auto: bool = False

    def read(self, value: Any) -> Any:
        if self.auto and isinstance(value, str) and value == "auto":
            return "auto"
        found = boolean(value)
        if found is None:
            quoted = isinstance(value, str) and boolean(Plain(value)) is not None
            fix = f"remove the quotes: {value}" if quoted else "remove this line for the default"
            raise wrong(f"is {show(value)}", expected="auto, true or false" if self.auto else "true or false", fix=fix)
        return found

    def json(self) -> dict[str, Any]:
        return {"enum": ["auto", True, False]} if self.auto else {"type": "boolean"}


@dataclass(frozen=True, kw_only=True)
class Text(Reader):
    """Free text. What goes into paths and commands is one line, without characters that act or hide."""

    what: str = "text"
    null: bool = False
    lines: bool = False
    """Line ends and tabs are allowed, and any length."""

    def read(self, value: Any) -> Any:
        if is_null(value) and self.null:
            return None
        if is_null(value) or isinstance(value, (bool, dict, list)):
            raise wrong(f"is {show(value)}", expected=self.what, fix=self._fix(value))
        text = str(value)
        self._check(text, value)
        return text

    def _check(self, text: str, value: object) -> None:
        if not text.strip() and not self.lines:
            raise wrong("is an empty text", expected=self.what, fix=self._fix(None))
        hidden = next((c for c in text if not self._allows(c)), None)
        if hidden is not None:
            name = f"U+{ord(hidden):04X}"
            raise wrong(f"holds the character {name}: {show(value)}", expected=f"{self.what} to read", fix="remove it")
        if len(text) > LONGEST_LINE and not self.lines:
            raise wrong(f"is {len(text):,} characters long", expected=f"at most {LONGEST_LINE:,} characters")

    def _allows(self, c: str) -> bool:
        if self.lines and c in _LINE_ENDS:
            return True
        return unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") and (self.lines or c not in _BIDI)

    def _fix(self, value: object) -> str:
        return "remove this line" if is_null(value) else f"write {self.what}"

    def json(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"type": "string"} if self.lines else {"type": "string", "pattern": r"\S"}
        return {"anyOf": [plain, {"type": "null"}]} if self.null else plain


@dataclass(frozen=True)
class Options(Reader):
    """A free mapping, handed on as data. Unquoted scalars are read as YAML 1.2 reads them."""

    def read(self, value: Any) -> Any:
        if is_null(value):
            return {}
        if not isinstance(value, dict):
            raise wrong(f"is {show(value)}", expected="a mapping of options", fix="write key: value lines")
        plain = core(value)
        if not _finite(plain):
            raise wrong("holds a number that is not finite", expected="numbers that JSON has")
        return plain

    def json(self) -> dict[str, Any]:
        return {"type": ["object", "null"]}


def _finite(value: object) -> bool:
    if isinstance(value, (dict, list)):
        return all(_finite(v) for v in (value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)
