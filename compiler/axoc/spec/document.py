"""YAML text to plain values and the place of each. Nothing in here knows what a spec may hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from axoc.errors import Diagnostic, UserError
from axoc.facts.yaml_nodes import compose
from axoc.spec.problems import Path, Place, Problem
from axoc.spec.scalars import Plain, is_null, number, printable, show

_PLAIN: Final = "plain"
_KEY: Final = "(key)"
"""Ends the path of what is wrong with a key, not with its value."""
_YAML: Final = "tag:yaml.org,2002:"
_SCALARS: Final = frozenset(_YAML + name for name in ("int", "float", "bool", "null"))


class _Loader(yaml.SafeLoader):
    """Leaves unquoted scalars as they are: their field reads them."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        unquoted = kind is yaml.ScalarNode and implicit[0]
        return _PLAIN if unquoted else super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A mapping, with places and with what is wrong whatever the spec allows (repeated keys, tags)."""

    file: str
    values: dict[str, Any]
    keys: dict[Path, Place] = field(default_factory=dict)
    places: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_document(text: str, file: str) -> Document:
    """Raises UserError where the text is no YAML mapping; lesser problems are collected in the document."""
    root = compose(text, file, _Loader)
    if root is None or (isinstance(root, yaml.ScalarNode) and is_null(Plain(root.value))):
        message, fix = "the spec is empty", "write one with axoc init, or begin with model: HUB_ID"
        raise UserError(Diagnostic(message=message, file=file, expected="a mapping", fix=fix))
    document = Document(file=file, values={})
    values = _Builder(document).value(root, ())
    if not isinstance(values, dict):
        raise UserError(_no_mapping(values, root, file))
    document.values.update(values)
    return document


def _no_mapping(values: Any, root: yaml.Node, file: str) -> Diagnostic:
    place = _place(root)
    message = f"a spec is a mapping, and this file holds {show(values)}"
    fix = "write key: value lines, e.g. model: HUB_ID"
    return Diagnostic(message=message, file=file, line=place.line, column=place.column, expected="model:, …", fix=fix)


@dataclass(frozen=True)
class _Builder:
    document: Document

    def value(self, node: yaml.Node, path: Path) -> Any:
        self.document.places[path] = _place(node)
        if isinstance(node, yaml.MappingNode) and node.tag == _YAML + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _YAML + "seq":
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag == _YAML + "str":
            return self._text(node, path)
        if isinstance(node, yaml.ScalarNode) and node.tag in (_PLAIN, *_SCALARS):
            return Plain(node.value)
        self._problem(path, node, f"the tag {_short_tag(node.tag)} is not read here", "remove the tag")
        return None

    def _text(self, node: yaml.ScalarNode, path: Path) -> str:
        if not _is_half(node.value):
            return str(node.value)
        self._problem(path, node, "an escape stands for half of a character", "write the character itself")
        return "?"

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in node.value:
            reason = _no_name(key)
            if reason is not None:
                self._problem((*path, _KEY), key, *reason)
            elif key.value in values:
                self._twice((*path, key.value), key)
            else:
                self.document.keys[(*path, key.value)] = _place(key)
                values[key.value] = self.value(value, (*path, key.value))
        return values

    def _twice(self, path: Path, key: yaml.Node) -> None:
        message = f"{printable(str(path[-1]))} is given twice, first in line {self.document.keys[path].line}"
        self._problem((*path, _KEY), key, message, "keep one of them")

    def _problem(self, path: Path, node: yaml.Node, message: str, fix: str) -> None:
        problem = Problem(path=path, message=message, fix=fix, whole=True, place=_place(node))
        self.document.problems.append(problem)


def _no_name(key: yaml.Node) -> tuple[str, str] | None:
    """Why a node cannot be a key, and the fix."""
    if not isinstance(key, yaml.ScalarNode):
        return "a key is a list or a mapping", "write a name before the colon, and put {{ … }} in quotes"
    if key.tag not in (_PLAIN, _YAML + "str"):
        return f"a key has the tag {_short_tag(key.tag)}", "remove the tag"
    if _is_half(key.value):
        return "an escape in a key stands for half of a character", "write a name"
    return None if key.tag == _YAML + "str" else _no_plain_name(key.value)


def _no_plain_name(name: str) -> tuple[str, str] | None:
    if name == "<<":
        return "merge keys (<<) are not read here", "write the keys out"
    if is_null(Plain(name)):
        return "a key is empty", "write a name before the colon"
    if number(Plain(name)) is not None or name.lower() in ("true", "false"):
        return f"the key {printable(name)} is not a name", f'write "{printable(name)}", if a name is meant'
    return None


def _is_half(text: str) -> bool:
    """Escapes like \\ud800 make halves of UTF-16 pairs, which no file or terminal takes."""
    return any("\ud800" <= c <= "\udfff" for c in text)


def _short_tag(tag: str) -> str:
    return printable(tag.replace(_YAML, "!!"))


def _place(node: yaml.Node) -> Place:
    return Place(line=node.start_mark.line + 1, column=node.start_mark.column + 1)
