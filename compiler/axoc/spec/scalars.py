"""Plain scalars: unquoted YAML text, read as the field that holds it needs.

YAML 1.1 makes ``no`` a boolean, ``2e-5`` a text, ``1:30`` ninety and ``010`` eight, before anyone knows what the field
is. Here an unquoted scalar stays what was written (``Plain``) until its field reads it: ``mixed_precision: no`` is a
word, ``learning_rate: 2e-5`` a number, ``revision: 123e456`` a text. Where no field decides (free-form options), the
core schema of YAML 1.2 does.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

MAX_ECHO: Final = 60
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"true", "yes", "on"})
_FALSE: Final = frozenset({"false", "no", "off"})
_DIGITS: Final = 400
"""More digits than any number here has; Python itself refuses to read thousands."""
_DECIMAL: Final = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)")
_BASED: Final = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL: Final = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}


class Plain(str):
    """An unquoted scalar, as it was written."""

    __slots__ = ()


def is_null(value: object) -> bool:
    """Null, ``~``, or nothing at all after the colon."""
    return value is None or (isinstance(value, Plain) and value in _NULLS)


def number(value: object) -> int | float | None:
    """The number a value stands for; None where it is none. Quoted text is no number."""
    if isinstance(value, Plain):
        return _plain_number(value)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def boolean(value: object) -> bool | None:
    """True or False, also as yes, no, on and off; None where the value is neither."""
    if isinstance(value, bool):
        return value
    word = value.lower() if isinstance(value, Plain) else ""
    return True if word in _TRUE else False if word in _FALSE else None


def core(value: object) -> Any:
    """Plain Python data: what YAML 1.2's core schema makes of unquoted scalars, all through lists and mappings."""
    if isinstance(value, dict):
        return {str(k): core(v) for k, v in value.items()}
    if isinstance(value, list):
        return [core(v) for v in value]
    return _plain_value(value) if isinstance(value, Plain) else value


def show(value: object) -> str:
    """A value for a message: short, printable, text in quotes."""
    if is_null(value):
        return "empty"
    if isinstance(value, (dict, list, tuple)):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = printable(str(value))
    if not isinstance(core(value), str):
        return text
    looks_unquoted = not isinstance(value, Plain) and not isinstance(core(Plain(text)), str)
    return f"the quoted text '{text}'" if looks_unquoted else f"'{text}'"


def printable(text: str) -> str:
    """At most MAX_ECHO characters, none of which a terminal would act on."""
    short = text if len(text) <= MAX_ECHO else text[: MAX_ECHO - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)[: 2 * MAX_ECHO]


def _plain_number(text: str) -> int | float | None:
    if len(text) > _DIGITS:
        return None
    if _DECIMAL.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text) and not is_octal_or_padded(text):
        return float(text)
    return _SPECIAL.get(text.lower())


def is_octal_or_padded(text: str) -> bool:
    """``010``: eight to YAML 1.1, ten to YAML 1.2 and to most people."""
    return re.fullmatch(r"[-+]?0[0-9]+", text) is not None


def _plain_value(text: Plain) -> Any:
    if is_null(text):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    found = number(text)
    return str(text) if found is None else found
