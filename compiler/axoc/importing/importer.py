"""`axoc import FILE... --out SPEC`: which tool a file is of, the spec it becomes, and the report of every key."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from axoc.emit.text import printable
from axoc.errors import Diagnostic, UserError
from axoc.importing import accelerate, axolotl, llamafactory, trainer
from axoc.importing.translate import Draft, Note, Tool, read_values, translated
from axoc.inputs import read_bytes
from axoc.spec.load import load_spec

TOOLS: Final = {
    tool.name: tool
    for tool in (axolotl.TOOL, llamafactory.TOOL, trainer.TOOL, accelerate.TOOL, accelerate.DEEPSPEED_TOOL)
}
TOLD_BY: Final[dict[str, tuple[str, ...]]] = {
    "axolotl": ("base_model", "micro_batch_size", "sequence_len"),
    "llamafactory": ("finetuning_type", "stage", "cutoff_len", "template", "lora_target"),
    "accelerate": ("compute_environment", "distributed_type"),
    "deepspeed": ("zero_optimization", "train_micro_batch_size_per_gpu", "zero_allow_untested_optimizer"),
    "trl": ("model_name_or_path", "dataset_name", "learning_rate", "per_device_train_batch_size"),
}
"""Keys that only that tool's files have, the unmistakable tools first."""
ORDER: Final = ("version", "name", "model", "adapter", "dataset", "training", "distributed", "tracking", "output_dir")
WIDTH: Final = 100


@dataclass(frozen=True, kw_only=True)
class Imported:
    tools: tuple[str, ...]
    spec: dict[str, Any]
    notes: tuple[Note, ...]
    files: tuple[str, ...]


def imported(files: Sequence[Path], tool: str | None = None, model: str | None = None) -> Imported:
    """One run's files together: later ones fill in what earlier ones leave open. Raises UserError, all problems at once."""
    drafts: list[tuple[str, Draft]] = []
    problems: list[Diagnostic] = []
    for file in files:
        try:
            drafts.append(_draft(file, tool))
        except UserError as error:
            problems += error.diagnostics
    if problems:
        raise UserError(*problems)
    spec: dict[str, Any] = {}
    for _, draft in reversed(drafts):
        spec = merged(spec, draft.spec)
    if model is not None:
        spec = merged(spec, {"model": {"id": model}})
    if not spec.get("model", {}).get("id"):
        message = "nothing here says which model is trained, so model.id would be missing"
        fix = "name the trainer's own file beside it, or the model with --model"
        raise UserError(Diagnostic(message=message, file=str(files[0]), fix=fix))
    return Imported(
        tools=tuple(name for name, _ in drafts),
        spec={"version": 1} | spec,
        notes=tuple(n for _, draft in drafts for n in sorted(draft.notes, key=lambda n: n.line or math.inf)),
        files=tuple(map(str, files)),
    )


def _draft(file: Path, tool: str | None) -> tuple[str, Draft]:
    text = read_bytes(file, "the configuration").decode("utf-8-sig", "replace")
    values, nodes = read_values(text, str(file))
    found: Tool = TOOLS[tool] if tool is not None else tool_of(values, str(file))
    return found.name, translated(found, values, nodes, str(file))


def tool_of(values: dict[str, Any], file: str) -> Tool:
    for name, keys in TOLD_BY.items():
        if any(key in values for key in keys):
            return TOOLS[name]
    first = ", ".join(list(values)[:5])
    message = f"no tool's configuration that axoc knows: its keys are {printable(first)[:120]}"
    raise UserError(
        Diagnostic(message=message, file=file, expected="one of " + ", ".join(TOOLS), fix="name it with --from")
    )


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Of two values the one of ``over``; mappings are merged."""
    found = dict(under)
    for key, value in over.items():
        inner = found.get(key)
        found[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return found


def spec_text(found: Imported) -> str:
    """The spec, which says in comments where it came from and what would be otherwise. Raises UserError where axoc's own
    checks refuse it: a value that the other tool takes and a spec does not."""
    ordered = {key: found.spec[key] for key in (*ORDER, *found.spec) if key in found.spec}
    body = yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=WIDTH)
    head = [
        f"# Imported from {', '.join(Path(f).name for f in found.files)} ({', '.join(dict.fromkeys(found.tools))})."
    ]
    otherwise = [n for n in found.notes if n.effect in ("trains otherwise", "unknown")]
    if otherwise:
        head.append("# Not carried over, and it may matter:")
        head += [line for note in otherwise for line in _comment(note)]
    text = "\n".join(printable(line) for line in head) + "\n" + body
    try:
        load_spec(text.encode(), "the spec that it becomes")
    except UserError as error:
        raise UserError(*(_placed(d, found) for d in error.diagnostics)) from None
    return text


def _comment(note: Note) -> Iterable[str]:
    reason = note.reason or "a key that axoc does not know"
    return textwrap.wrap(f"- {note.key}: {reason}", WIDTH, initial_indent="#  ", subsequent_indent="#    ")


def _placed(diagnostic: Diagnostic, found: Imported) -> Diagnostic:
    """At the key that the refused field came from, where one is named."""
    note = next((n for n in found.notes if n.field and n.field in diagnostic.message), None)
    if note is None:
        return Diagnostic(
            message=diagnostic.message, file=found.files[0], expected=diagnostic.expected, fix=diagnostic.fix
        )
    message = f"{note.key}: {diagnostic.message}"
    return Diagnostic(
        message=message,
        file=found.files[0],
        line=note.line,
        column=note.column,
        expected=diagnostic.expected,
        fix=diagnostic.fix,
    )


# --- report

TITLES: Final = {
    "unknown": "Keys that axoc does not know",
    "trains otherwise": "Left out, so that the run trains otherwise",
    "left out": "Left out, with no effect on what is trained",
    "moved": "Carried over",
}


def report(found: Imported, *, color: bool = False) -> str:
    lines: list[str] = []
    for effect in ("moved", "left out", "trains otherwise", "unknown"):
        notes = [note for note in found.notes if note.effect == effect]
        if not notes:
            continue
        title = f"{TITLES[effect]} ({len(notes)})"
        lines += [f"\x1b[1m{title}\x1b[0m" if color else title]
        lines += [line for note in notes for line in _lines(note)] + [""]
    return "\n".join(lines)


def _lines(note: Note) -> list[str]:
    place = f"{note.line}: " if note.line else ""
    if note.effect == "moved":
        said = f"{place}{note.key} -> {note.field}: {_shown(note.became)}" + (
            f" ({note.reason})" if note.reason else ""
        )
    else:
        said = f"{place}{note.key}" + (f": {note.reason}" if note.reason else "")
    return textwrap.wrap(printable(said), WIDTH, initial_indent="  ", subsequent_indent="      ")


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
