"""From a foreign file to a spec: read safely, each key looked up, what cannot be said named with its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from axoc.errors import Diagnostic, UserError
from axoc.facts.yaml_nodes import compose, place
from axoc.importing.keys import NOTHING, Effect, Key, Untranslatable

OFF: Final[tuple[Any, ...]] = (None, False, "", [], {}, "none", "no")
"""Values with which a key that is left out says nothing."""


@dataclass(frozen=True, kw_only=True)
class Note:
    """What became of one key."""

    key: str
    effect: Effect | Literal["unknown"]
    value: Any
    field: str = ""
    became: Any = None
    reason: str = ""
    line: int | None = None
    column: int | None = None


@dataclass(kw_only=True)
class Draft:
    """A spec in the making, and what was noted on the way."""

    file: str
    folder: Path
    """Of the file: paths in it may count from there."""
    values: dict[str, Any]
    """The file's, nested keys of sections by dotted name."""
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def put(self, name: str, value: Any) -> None:
        """Sets a field by its dotted name."""
        *parts, last = name.split(".")
        inner = self.spec
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[last] = value

    def note(self, key: str, effect: Any, *, field: str = "", became: Any = None, reason: str = "") -> None:
        line, column = self.places.get(key, (None, None))
        value = self.values.get(key)
        self.notes.append(
            Note(
                key=key, effect=effect, value=value, field=field, became=became, reason=reason, line=line, column=column
            )
        )

    def moved(self, key: str, field: str, value: Any, reason: str = "") -> None:
        self.put(field, value)
        self.note(key, "moved", field=field, became=value, reason=reason)


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One trainer's configuration files."""

    name: str
    keys: Mapping[str, Key]
    sections: tuple[str, ...] = ()
    """Keys whose nested keys are looked up too, by dotted name."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What the tool does where its file says nothing and a spec's default would do otherwise, by the spec's field."""
    combine: tuple[Callable[[Draft], None], ...] = ()
    """Read keys that mean something only together, after all others."""


def read_values(text: str, file: str) -> tuple[dict[str, Any], dict[str, yaml.Node]]:
    """The file's top-level values and their key nodes. Raises UserError."""
    root = compose(text, file)
    if not isinstance(root, yaml.MappingNode):
        fix = "give a YAML or JSON configuration of axolotl, LLaMA-Factory, TRL, accelerate or DeepSpeed"
        raise UserError(Diagnostic(message="no mapping of keys to values", fix=fix, **place(root, file)))
    values: dict[str, Any] = {}
    nodes: dict[str, yaml.Node] = {}
    for key, value in root.value:
        name = str(key.value) if isinstance(key, yaml.ScalarNode) else str(key.start_mark)
        values[name], nodes[name] = _plain(value), key
        if isinstance(value, yaml.MappingNode):
            nodes |= {f"{name}.{k.value}": k for k, _ in value.value if isinstance(k, yaml.ScalarNode)}
    return values, nodes


def _plain(node: yaml.Node) -> Any:
    """Python's values of plain YAML; a tag that stands for anything else is kept as text."""
    if isinstance(node, yaml.MappingNode):
        return {str(getattr(k, "value", k)): _plain(v) for k, v in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError):
        return str(node.value)


def translated(tool: Tool, values: Mapping[str, Any], nodes: Mapping[str, yaml.Node], file: str) -> Draft:
    """Raises UserError naming every key that cannot be said in a spec."""
    flat = _flattened(values, tool.sections)
    places = {n: (k.start_mark.line + 1, k.start_mark.column + 1) for n, k in nodes.items()}
    draft = Draft(file=file, folder=Path(file).parent, values=flat, places=places)
    problems: list[Diagnostic] = []
    for name, value in flat.items():
        key = tool.keys.get(name) or _by_pattern(tool.keys, name)
        if key is None:
            draft.note(name, "unknown")
        else:
            _apply(draft, name, value, key, problems)
    for combine in tool.combine:
        try:
            combine(draft)
        except UserError as error:
            problems += error.diagnostics
        except Untranslatable as error:
            problems.append(
                Diagnostic(
                    message=f"a value of {combine.__name__.strip('_')} has no counterpart",
                    file=file,
                    expected=str(error),
                )
            )
    if problems:
        raise UserError(*problems)
    told = {note.key for note in draft.notes}
    for name, value in flat.items():
        key = tool.keys.get(name) or _by_pattern(tool.keys, name)
        if key is not None and key.effect == "read with others" and name not in told and value not in OFF:
            draft.note(name, "left out", reason="with what else is set it changes nothing")
    for name, value in tool.defaults.items():
        _default(draft, tool, name, value)
    return draft


def _default(draft: Draft, tool: Tool, name: str, value: Any) -> None:
    part, _, last = name.partition(".")
    section = draft.spec.get(part, {})
    entries = section if isinstance(section, list) else [section]
    if all(last in entry for entry in entries) or (name == "training.epochs" and "max_steps" in section):
        return
    if isinstance(section, list):
        for entry in entries:
            entry.setdefault(last, value)
    else:
        draft.put(name, value)
    draft.note(f"({tool.name}'s default)", "moved", field=name, became=value)


def _flattened(values: Mapping[str, Any], sections: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name in sections and isinstance(value, dict) and value:
            found |= {f"{name}.{inner}": v for inner, v in value.items()}
        else:
            found[name] = value
    return found


def _by_pattern(keys: Mapping[str, Key], name: str) -> Key | None:
    """``wandb_*`` stands for all keys that begin so."""
    return next((key for pattern, key in keys.items() if pattern.endswith("*") and name.startswith(pattern[:-1])), None)


def _apply(draft: Draft, name: str, value: Any, key: Key, problems: list[Diagnostic]) -> None:
    if key.effect == "read with others":
        return
    if key.effect != "moved":
        if value in OFF:
            return
        if key.effect == "refused":
            problems.append(problem(draft, name, f"{name}: {key.reason}"))
        draft.note(name, key.effect, reason=key.reason)
        return
    if value is None:
        return
    try:
        became = value if key.convert is None else key.convert(value)
    except Untranslatable as error:
        message = f"{name}: {str(value)[:60]!r} has no counterpart in a spec"
        problems.append(problem(draft, name, message, expected=str(error)))
        return
    if became is NOTHING:
        draft.note(name, "left out", reason="the spec's default is the same")
    else:
        draft.moved(name, key.field, became)


def problem(draft: Draft, key: str, message: str, *, expected: str | None = None, fix: str | None = None) -> Diagnostic:
    line, column = draft.places.get(key, (None, None))
    return Diagnostic(message=message, file=draft.file, line=line, column=column, expected=expected, fix=fix)
