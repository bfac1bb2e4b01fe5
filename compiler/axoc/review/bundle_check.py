"""`axoc verify BUNDLE`: do the files still say the same? Digests tell which were altered; the plan, put together again from
plan.json and spec.yaml, tells what each file should say, whoever wrote the digests."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from axoc import __version__
from axoc.emit.bundle import build_bundle
from axoc.emit.json_places import MISSING, dotted, leaf_differences, lines_of, nearest_line, shown
from axoc.emit.manifest import MANIFEST, OWNED_FOLDERS, manifest_file
from axoc.emit.placement import config_path
from axoc.emit.user_config import checked_user_config
from axoc.emit.write import bundle_files
from axoc.errors import Diagnostic, UserError, reason
from axoc.facts.lock import lock_text
from axoc.ir.bundle import BundleFile
from axoc.ir.canonical import digest, dumps
from axoc.ir.plan import Plan
from axoc.review.invariants import broken_invariants
from axoc.review.rebuilt import Given, given, rebuilt

MOST_A_FILE: Final = 8
"""Contradictions told of one file; the rest is counted."""
JSON_FILES: Final = ("plan.json", "job.json")
NO_PLAN: Final = (ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, StopIteration)
"""What comes of values that no plan has, wherever they are first used: they are data, not a fault of this program."""
FIX: Final = "undo the edit, or change spec.yaml and run axoc plan"


@dataclass(frozen=True, kw_only=True)
class Checked:
    altered: tuple[Diagnostic, ...]
    """Files that are not as the manifest has them."""
    contradictions: tuple[Diagnostic, ...]
    notes: tuple[str, ...]
    """What was not compared, and why."""
    files: int

    @property
    def clean(self) -> bool:
        return not self.altered and not self.contradictions


def check_bundle(folder: Path) -> Checked:
    """Raises UserError where ``folder`` is no bundle at all."""
    manifest = _manifest(folder)
    altered = tuple(_altered(folder, manifest))
    texts, unreadable = _read_json(folder, manifest)
    if unreadable:
        return Checked(altered=altered, contradictions=unreadable, notes=(), files=len(manifest["files"]))
    found, notes = _contradictions(folder, manifest, texts)
    return Checked(altered=altered, contradictions=tuple(found), notes=notes, files=len(manifest["files"]))


# --- what the manifest says


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        digests = manifest["files"]
        if not all(isinstance(v, str) for v in digests.values()) or not {"plan.json", "job.json"} <= set(digests):
            raise ValueError("it lists no plan.json and job.json")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"this folder holds no manifest of a bundle: {reason(error)}"
        raise UserError(Diagnostic(message=message, file=str(path), fix="name a bundle that axoc plan wrote")) from None
    return dict(manifest)


def _altered(folder: Path, manifest: dict[str, Any]) -> Iterator[Diagnostic]:
    files = manifest["files"]
    for name in sorted(files):
        path = folder / name
        if not path.is_file():
            yield _diagnostic(folder, name, None, "missing: the manifest lists it")
        elif digest(path.read_bytes()) != files[name]:
            yield _diagnostic(folder, name, None, "altered since axoc wrote it: its digest is not the manifest's")
    extra = {p for p in bundle_files(folder) if p.split("/")[0] in OWNED_FOLDERS and "/" in p} - set(files)
    for name in sorted(extra):
        yield _diagnostic(folder, name, None, "extra: the manifest does not list it", fix="delete it")
    if (folder / "launch.sh").is_file() and not os.access(folder / "launch.sh", os.X_OK):
        yield _diagnostic(folder, "launch.sh", None, "it is not executable", fix="chmod +x launch.sh")
    yield from _manifest_itself(folder, manifest)


def _manifest_itself(folder: Path, manifest: dict[str, Any]) -> Iterator[Diagnostic]:
    listed = [BundleFile(path=n, content=b"") for n in manifest["files"]]
    fresh = json.loads(manifest_file(listed, manifest.get("inventory")).content)
    expected = {**fresh, "files": manifest["files"], "axoc_version": manifest.get("axoc_version")}
    expected["bundle_digest"] = digest(dumps(dict(sorted(manifest["files"].items()))).encode())
    yield from _json_contradictions(folder, MANIFEST, manifest, expected, _text(folder, MANIFEST), "its files give")


# --- what the files say of each other


def _read_json(folder: Path, manifest: dict[str, Any]) -> tuple[dict[str, Any], tuple[Diagnostic, ...]]:
    """The content of every JSON file, and those that cannot be read."""
    names = [*JSON_FILES, *(n for n in manifest["files"] if n.startswith("config/") and n.endswith(".json"))]
    values, problems = {}, []
    for name in names:
        try:
            values[name] = json.loads(_text(folder, name))
            if not isinstance(values[name], dict):
                raise ValueError("no object at the top")
        except (OSError, ValueError) as error:
            line = error.lineno if isinstance(error, json.JSONDecodeError) else None
            problems.append(_diagnostic(folder, name, line, f"it cannot be read: {error}"))
    return values, tuple(problems)


def _contradictions(
    folder: Path, manifest: dict[str, Any], values: dict[str, Any]
) -> tuple[list[Diagnostic], tuple[str, ...]]:
    plan_json, job = values["plan.json"], values["job.json"]
    try:
        inputs = given(folder, str(job.get("name")))
        plan = rebuilt(plan_json, inputs)
        broken = list(broken_invariants(plan, plan_json, inputs))
        expected, found = _expected(folder, plan, inputs, manifest, values)
    except UserError as error:
        return list(error.diagnostics), ("the files could not be compared: what the plan was made from cannot be read",)
    except NO_PLAN as error:
        if manifest.get("axoc_version") != __version__:
            return [], _notes(manifest)
        return [_diagnostic(folder, "plan.json", None, f"it is no plan of this axoc: {_first_line(error)}")], ()
    lines = lines_of(_text(folder, "plan.json")) if broken else {}
    told = [_diagnostic(folder, "plan.json", nearest_line(lines, path), message) for path, message in broken]
    own_profile = str(manifest.get("inventory")).endswith((".yaml", ".yml", ".json"))
    for file in (f for f in expected if f.path != MANIFEST and _is_compared(f.path, manifest)):
        found += _compare(folder, file, values, inputs, own_profile)
    names = {f.path for f in expected} | {MANIFEST, config_path(plan.chosen.candidate.strategy)}
    found += [
        _diagnostic(folder, n, None, "no plan like this has such a file", fix="delete it")
        for n in sorted(set(manifest["files"]) - names)
    ]
    return _once(told + found), _notes(manifest)


def _is_compared(name: str, manifest: dict[str, Any]) -> bool:
    """Of another axoc's bundle only what any axoc writes the same."""
    return manifest.get("axoc_version") == __version__ or name in ("spec.lock",) or name.startswith("config/")


def _notes(manifest: dict[str, Any]) -> tuple[str, ...]:
    written = manifest.get("axoc_version")
    if written == __version__:
        return ()
    return (f"written by axoc {written}, and this is {__version__}: only digests and configurations were compared",)


def _expected(
    folder: Path, plan: Plan, inputs: Given, manifest: dict[str, Any], values: dict[str, Any]
) -> tuple[tuple[BundleFile, ...], list[Diagnostic]]:
    """Every file as this plan gives it. A configuration written by hand is held against the plan, key by key."""
    own, problems = None, []
    config = config_path(plan.chosen.candidate.strategy)
    if inputs.request.distributed.config_path is not None and config in values:
        own = _text(folder, config)
        try:
            checked_user_config(plan, own)
        except UserError as error:
            problems = [replace(d, file=str(folder / config)) for d in error.diagnostics]
            own = None
    bundle = build_bundle(
        plan,
        inputs.spec_text,
        lock_text(inputs.request.model.id, inputs.request.model.revision, inputs.data),
        plugin_files=_plugins(folder, inputs),
        config_text=own,
        base_dir=str(values["job.json"].get("base_dir")),
        inventory=manifest.get("inventory"),
    )
    return tuple(f for f in bundle.files if not (problems and f.path == config)), problems


def _plugins(folder: Path, inputs: Given) -> dict[str, dict[str, bytes]]:
    """The bundle's own: nothing but digests says what a plugin was."""
    roots = {Path(p).name: folder / "plugins" / Path(p).name for p in inputs.request.plugins}
    return {
        name: {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
        for name, root in roots.items()
    }


def _compare(
    folder: Path, file: BundleFile, values: dict[str, Any], inputs: Given, own_profile: bool
) -> Iterator[Diagnostic]:
    """``own_profile``: the pace of the machine came from a file of the user's, which the bundle does not hold."""
    path = folder / file.path
    if not path.is_file() or path.read_bytes() == file.content:
        return
    if file.path in values:
        origin, wanted = _Origin(folder, values["plan.json"], inputs), json.loads(file.content)
        if own_profile and file.path == "job.json":
            wanted["prediction"]["pace"] = values["job.json"].get("prediction", {}).get("pace")
        yield from _json_contradictions(folder, file.path, values[file.path], wanted, _text(folder, file.path), origin)
        return
    line = _first_difference(path.read_bytes(), file.content)
    what = "the spec, the inventory and plan.json give" if not _is_source(file.path) else f"axoc {__version__} carries"
    yield _diagnostic(folder, file.path, line, f"this line is not what {what}")


def _is_source(name: str) -> bool:
    return name.startswith(("runtime/", "launch", "plugins/")) or name == "requirements.lock"


def _json_contradictions(
    folder: Path, name: str, found: Any, expected: Any, text: str, origin: _Origin | str
) -> Iterator[Diagnostic]:
    differences = [*leaf_differences(found, expected)]
    places = lines_of(text) if differences else {}
    for path, value, wanted in differences[:MOST_A_FILE]:
        says = origin if isinstance(origin, str) else origin.says(name, path)
        verb = "is not there" if value is MISSING else f"is {shown(value)}"
        other = "no such key" if wanted is MISSING else shown(wanted)
        yield _diagnostic(folder, name, nearest_line(places, path), f"{dotted(path)} {verb}, where {says} {other}")
    if len(differences) > MOST_A_FILE:
        yield _diagnostic(folder, name, None, f"and {len(differences) - MOST_A_FILE} more differences")


class _Origin:
    """Which file says otherwise: where the value stands in plan.json, or in spec.yaml, by its name."""

    def __init__(self, folder: Path, plan_json: dict[str, Any], inputs: Given) -> None:
        self.plan_lines = lines_of(_text(folder, "plan.json"))
        self.plan = plan_json["plan"]
        self.explicit = inputs.request.explicit
        self.spec_text = inputs.spec_text

    def says(self, name: str, path: tuple[str | int, ...]) -> str:
        from axoc.spec.document import read_document

        keys = tuple(p for p in path if isinstance(p, str))
        leaf = _IN_PLAN.get(keys[-1], keys[-1]) if keys else ""
        if leaf in self.plan and name != "plan.json" and keys[:1] not in (("datasets",), ("prediction",)):
            return f"plan.json:{self.plan_lines[('plan', leaf)]} gives"
        if keys[:1] == ("prediction",) and ("estimate", leaf) in self.plan_lines:
            return f"plan.json:{self.plan_lines[('estimate', leaf)]} gives"
        spec_keys = ("dataset" if p == "datasets" else p for p in keys)
        dotted_name = ".".join(spec_keys)
        if name == "job.json" and dotted_name in self.explicit:
            places = read_document(self.spec_text, "spec.yaml").places
            lines = [p.line for k, p in places.items() if ".".join(x for x in k if isinstance(x, str)) == dotted_name]
            return f"spec.yaml:{lines[0]} gives" if lines else "spec.yaml gives"
        return "the rest of plan.json gives" if name == "plan.json" else "spec.yaml and plan.json give"


_IN_PLAN: Final = {
    "train_batch_size": "micro_batch_size",
    "train_micro_batch_size_per_gpu": "micro_batch_size",
    "stage": "strategy",
    "offload_optimizer": "offload",
    "offload_param": "offload",
    "autotp_size": "tensor_parallel",
    "processes_per_node": "world_size",
    "nodes": "world_size",
}
"""Names of a configuration or of the job, and the value of the plan that they follow from."""


# --- small things


def _first_difference(found: bytes, expected: bytes) -> int:
    """1-based; one past the shorter one's end where it is the beginning of the other."""
    lines, others = found.splitlines(), expected.splitlines()
    same = (i for i, (a, b) in enumerate(zip(lines, others, strict=False)) if a != b)
    return 1 + next(same, min(len(lines), len(others)))


def _once(found: list[Diagnostic]) -> list[Diagnostic]:
    return list(dict.fromkeys(found))


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def _text(folder: Path, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")


def _diagnostic(folder: Path, name: str, line: int | None, message: str, *, fix: str | None = None) -> Diagnostic:
    return Diagnostic(message=message, file=str(folder / name), line=line, fix=fix)


def as_text(found: Checked, folder: Path) -> str:
    """A line or two each: altered files, then contradictions, then what was not compared."""
    lines = [d.render() for d in (*found.altered, *found.contradictions)]
    lines += [f"Note: {note}." for note in found.notes]
    if found.clean:
        return (
            "\n".join([*lines, f"{folder}: {found.files} files, as axoc wrote them, and they agree with each other."])
            + "\n"
        )
    number = len(found.contradictions)
    counts = f"{len(found.altered)} altered, {number} contradiction{'s' * (number != 1)}"
    return "\n".join([*lines, f"{folder}: {counts}. To mend it: {FIX}."]) + "\n"


def as_dict(found: Checked) -> dict[str, Any]:
    def rows(problems: tuple[Diagnostic, ...]) -> list[dict[str, Any]]:
        return [{"file": d.file, "line": d.line, "message": d.message, "fix": d.fix} for d in problems]

    return {
        "schema_version": 1,
        "clean": found.clean,
        "files": found.files,
        "altered": rows(found.altered),
        "contradictions": rows(found.contradictions),
        "notes": list(found.notes),
    }
