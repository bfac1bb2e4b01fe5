"""Strict reading of JSON into frozen dataclasses: every unknown, missing or ill-typed key is named, all at once.

A key that came after bundles were written without it has a default: what they meant."""

from __future__ import annotations

import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints


def read(cls: type[Any], value: Any, where: str, problems: list[str]) -> Any:
    """An instance of ``cls``, or None where ``problems`` were added."""
    if not isinstance(value, dict):
        problems.append(f"{where}: expected an object, found {kind(value)}")
        return None
    hints = get_type_hints(cls)
    names = [f.name for f in fields(cls)]
    problems += [f"{where}.{key}: not a key of this schema version" for key in value if key not in names]
    missing = [f.name for f in fields(cls) if f.name not in value and f.default is MISSING]
    problems += [f"{where}.{name}: missing" for name in missing]
    before = len(problems)
    made = {n: convert(hints[n], value[n], f"{where}.{n}", problems) for n in names if n in value}
    return cls(**made) if len(problems) == before and not missing else None


def convert(hint: Any, value: Any, where: str, problems: list[str]) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _union(arguments, value, where, problems)
    if is_dataclass(hint) and isinstance(hint, type):
        return read(hint, value, where, problems)
    if origin is tuple:
        if not isinstance(value, list):
            problems.append(f"{where}: expected a list, found {kind(value)}")
            return ()
        return tuple(convert(arguments[0], v, f"{where}[{i}]", problems) for i, v in enumerate(value))
    if hint is Any:
        return value
    return _plain(origin or hint, value, where, problems)


def _union(arguments: tuple[Any, ...], value: Any, where: str, problems: list[str]) -> Any:
    """None, or the first of the others whose JSON type fits."""
    if value is None and type(None) in arguments:
        return None
    others = [a for a in arguments if a is not type(None)]
    fitting = [a for a in others if (get_origin(a) is tuple) == isinstance(value, list)]
    return convert((fitting or others)[0], value, where, problems)


def _plain(hint: Any, value: Any, where: str, problems: list[str]) -> Any:
    """A JSON integer serves as a float; a boolean is no number."""
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        problems.append(f"{where}: expected {hint.__name__}, found {kind(value)}")
    return value


def kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), f"the number {value!r}")
