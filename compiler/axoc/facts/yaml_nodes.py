"""YAML with positions: a document as nodes, read safely, and diagnostics that say file, line and column."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

import yaml

from axoc.errors import Diagnostic, UserError
from axoc.facts.yaml_syntax import syntax_diagnostic

MAX_CHARACTERS: Final = 1 << 20
MAX_DEPTH: Final = 50
_MAPPING_TAG: Final = "tag:yaml.org,2002:map"


@dataclass(frozen=True, kw_only=True)
class NodeReader:
    """Typed access to YAML mappings; problems are collected in ``problems`` and None is handed out instead."""

    file: str
    problems: list[Diagnostic] = field(default_factory=list)

    def mapping(self, node: yaml.Node | None, known: Collection[str], what: str) -> dict[str, yaml.Node]:
        """The mapping's values by key. Unknown and repeated keys are problems."""
        if not isinstance(node, yaml.MappingNode) or node.tag != _MAPPING_TAG:
            self.reject(node, f"{what} is not a mapping", expected="keys: " + ", ".join(known))
            return {}
        values: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(key.value)
            if name in values:
                self.reject(key, f"{what}: {name} is given twice")
            elif name not in known:
                self._unknown(key, name, known, what)
            else:
                values[name] = value
        return values

    def number(self, node: yaml.Node | None, name: str, *, minimum: float = 0.0) -> float | None:
        """A number above ``minimum``; None where absent or null."""
        value = scalar(node)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not minimum < value < float("inf"):
            self.reject(node, f"{name} is {str(value)[:40]!r}", expected=f"a number above {minimum:g}")
            return None
        return float(value)

    def count(self, node: yaml.Node | None, name: str, default: int) -> int:
        value = scalar(node)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.reject(node, f"{name} is {str(value)[:40]!r}", expected="a whole number, 1 or more")
            return default
        return value

    def text(self, node: yaml.Node | None, name: str) -> str | None:
        value = scalar(node)
        if value is not None and not isinstance(value, str):
            self.reject(node, f"{name} is {str(value)[:40]!r}", expected="text")
            return None
        return value

    def reject(
        self, node: yaml.Node | None, message: str, *, expected: str | None = None, fix: str | None = None
    ) -> None:
        self.problems.append(Diagnostic(message=message, expected=expected, fix=fix, **place(node, self.file)))

    def finish(self) -> None:
        """Raises UserError with every problem found."""
        if self.problems:
            raise UserError(*self.problems)

    def _unknown(self, key: yaml.Node, name: str, known: Collection[str], what: str) -> None:
        close = get_close_matches(name, known, n=1, cutoff=0.5)
        fix = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
        self.reject(key, f"{what}: {name[:60]!r} is not a key here", fix=fix)


def compose(text: str, file: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> yaml.Node | None:
    """The document's root node; None where it is empty. Raises UserError; for aliases too: they can blow up."""
    if len(text) > MAX_CHARACTERS:
        raise UserError(Diagnostic(message=f"{len(text):,} characters are too many for this file", file=file))
    try:
        _refuse_bombs(yaml.parse(text, Loader=loader), file)
        return yaml.compose(text, Loader=loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(syntax_diagnostic(error, file)) from None


def _refuse_bombs(events: Iterable[yaml.Event], file: str) -> None:
    """Stops at what costs more than it looks: composing recurses, and the scanner is slow in deep brackets."""
    depth = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            message = "YAML aliases (*name) are not read here"
            raise UserError(Diagnostic(message=message, fix="write it out", **place(event, file)))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            message = f"nested more than {MAX_DEPTH} levels deep"
            raise UserError(Diagnostic(message=message, fix="see whether a bracket is left open", **place(event, file)))


def scalar(node: yaml.Node | None) -> Any:
    """The Python value of a scalar node; None for an absent one; the node itself where it is no scalar."""
    if not isinstance(node, yaml.ScalarNode):
        return node
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError):  # a tag that SafeLoader does not know, or a date that is none
        return node.value


def place(node: yaml.Node | yaml.Event | None, file: str) -> dict[str, Any]:
    """Diagnostic fields: file, and line and column where the node is known."""
    if node is None or node.start_mark is None:
        return {"file": file}
    return {"file": file, "line": node.start_mark.line + 1, "column": node.start_mark.column + 1}
