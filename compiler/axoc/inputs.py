"""Inputs: every file a plan is made from, read once, before anything is decided."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Final

from axoc.errors import Diagnostic, UserError
from axoc.facts.cluster import is_cpu, with_processes
from axoc.facts.inventory import parse_inventory
from axoc.facts.lock import DATA_SUFFIXES, lock_text, parse_lock
from axoc.facts.models import lookup_model
from axoc.facts.vision.rows import Rows, blind, with_vision
from axoc.facts.vocabulary import grown, with_trained_rows
from axoc.ir.facts import ClusterFacts, DataFacts, ModelFacts
from axoc.ir.request import PlanRequest
from axoc.spec.load import load_spec

DEFAULT_INVENTORY: Final = "cpu"
MAX_CONFIG_BYTES: Final = 4 << 20
MAX_BYTES: Final = 16 << 20
"""Of any file that is read whole."""
TEMPLATE_MARKS: Final = ("{%", "{{")
PLUGIN_SUFFIXES: Final = (".py", ".toml", ".md", ".cfg", ".txt", ".typed")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    request: PlanRequest
    model: ModelFacts
    clusters: tuple[ClusterFacts, ...]
    data: tuple[DataFacts, ...]
    spec_text: str
    lock_text: str
    plugin_files: Mapping[str, Mapping[str, bytes]]
    config_text: str | None
    notes: tuple[str, ...]
    inventory: str
    """As it was named: by the caller, in the spec, or by default."""


def read_inputs(spec_path: Path, inventory: str | None, *, frozen: bool) -> Inputs:
    """Reads and checks all inputs. Raises UserError."""
    content = read_bytes(spec_path, "the spec")
    request = load_spec(content, str(spec_path))
    folder = spec_path.parent
    request, seen = with_vision(request, lambda written: find(written, folder))
    parts: tuple[Callable[[], object], ...] = (
        lambda: _seeing_model(request, folder, seen),
        lambda: _clusters(request, inventory),
        lambda: _locked_data(request, lock_path(spec_path), frozen=frozen),
        lambda: _config_text(request, folder),
        *(partial(_plugin, find(p, folder), p) for p in request.plugins),
    )
    try:
        return _looked_up(request, seen, spec_path, content, inventory, frozen=frozen)
    except UserError as error:
        raise UserError(*dict.fromkeys((*error.diagnostics, *_problems(parts)))) from None


def _problems(parts: Iterable[Callable[[], object]]) -> Iterator[Diagnostic]:
    """What is wrong with parts that do not depend on one another: all is told at once."""
    for part in parts:
        try:
            part()
        except UserError as error:
            yield from error.diagnostics


def _looked_up(
    request: PlanRequest, seen: Rows | None, spec_path: Path, content: bytes, inventory: str | None, *, frozen: bool
) -> Inputs:
    folder = spec_path.parent
    request = with_template(request, folder)
    model, notes = _seeing_model(request, folder, seen)
    request, told = with_trained_rows(request, model)
    clusters, more = _clusters(request, inventory)
    data = _locked_data(request, lock_path(spec_path), frozen=frozen)
    return Inputs(
        request=request,
        model=grown(model, request),
        clusters=clusters,
        data=data,
        spec_text=content.decode("utf-8-sig"),
        lock_text=lock_text(request.model.id, request.model.revision, data),
        plugin_files={Path(p).name: _plugin(find(p, folder), p) for p in request.plugins},
        config_text=_config_text(request, folder),
        notes=(*notes, *told, *more, *_absent_data(request, folder)),
        inventory=inventory or request.inventory or DEFAULT_INVENTORY,
    )


def with_template(request: PlanRequest, folder: Path) -> PlanRequest:
    """The chat template itself in the place of its path: a bundle carries it. Raises UserError."""
    tokenizer = request.model.tokenizer
    written = tokenizer.chat_template
    if written is None or any(mark in written for mark in TEMPLATE_MARKS):
        return request
    text = read_bytes(find(written.strip(), folder), "model.tokenizer.chat_template").decode("utf-8", "replace")
    if not any(mark in text for mark in TEMPLATE_MARKS):
        fix = "name a file with a Jinja template, or write the template itself"
        raise UserError(Diagnostic(message="model.tokenizer.chat_template: no Jinja in it", file=written, fix=fix))
    tokenizer = replace(tokenizer, chat_template=text)
    return replace(request, model=replace(request.model, tokenizer=tokenizer))


def lock_path(spec_path: Path) -> Path:
    """``spec.yaml`` is locked by ``spec.lock``, ``quickstart.yaml`` by ``quickstart.lock``."""
    return spec_path.with_suffix(".lock")


def find(written: str, folder: Path) -> Path:
    """A path of the spec: from the working directory, as in the trainers people come from, else beside the spec."""
    path = Path(written).expanduser()
    beside = folder / path
    return beside if not path.exists() and beside.exists() else path


def read_bytes(path: Path, what: str) -> bytes:
    """The file's content. Raises UserError naming what could not be read and why."""
    try:
        with path.open("rb") as stream:  # of any kind, a pipe too, but not without end
            content = stream.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise UserError(Diagnostic(message=f"{what} is a folder", file=str(path), expected="a file")) from None
    except OSError as error:
        fix = "check the path; relative ones count from the working directory"
        message = f"cannot read {what}: {error.strerror}"
        raise UserError(Diagnostic(message=message, file=str(path), fix=fix)) from None
    if len(content) > MAX_BYTES:
        raise UserError(Diagnostic(message=f"{what} is larger than {MAX_BYTES >> 20} MiB", file=str(path)))
    return content


def _seeing_model(request: PlanRequest, folder: Path, seen: Rows | None) -> tuple[ModelFacts, list[str]]:
    """Raises UserError: where the model is none that sees what is in the rows, it names them."""
    try:
        return _model(request, folder)
    except UserError as error:
        raise (error if seen is None else blind(seen, error)) from None


def _model(request: PlanRequest, folder: Path) -> tuple[ModelFacts, list[str]]:
    """Facts from model.config, else a config.json in the model's own folder, else the catalog."""
    model = request.model
    if model.config is not None:
        path = find(model.config, folder)
        return lookup_model(model.id, _config(path), str(model.config), model.type, sees=model.vision)
    own = find(model.id or "", folder) / "config.json"
    if model.id is not None and own.is_file():
        return lookup_model(model.id, _config(own), f"{model.id}/config.json", model.type, sees=model.vision)
    return lookup_model(model.id, None, None, model.type, sees=model.vision)


def _config(path: Path) -> dict[str, Any]:
    content = read_bytes(path, "model.config")
    try:
        if len(content) > MAX_CONFIG_BYTES:
            raise ValueError(f"{len(content):,} bytes are too many for a config.json")
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        fix = "give the config.json of the model, as its repository has it"
        raise UserError(Diagnostic(message=f"not a config.json: {error}", file=str(path), fix=fix)) from None
    if not isinstance(value, dict):
        raise UserError(Diagnostic(message="not a config.json: no object at the top", file=str(path)))
    return value


def _clusters(request: PlanRequest, inventory: str | None) -> tuple[tuple[ClusterFacts, ...], list[str]]:
    """A name or a file. Without one the spec's own, else the CPU, and a warning that says so."""
    notes = []
    wanted = inventory or request.inventory
    if wanted is None:
        wanted = DEFAULT_INVENTORY
        notes.append("no inventory was given, so this is planned for the CPU: pass --inventory, e.g. h100-sxm-80gb:8")
    path = Path(wanted)
    text = read_bytes(path, "the inventory").decode("utf-8", "replace") if path.is_file() else None
    clusters = parse_inventory(wanted, text, str(path) if text is not None else None)
    return tuple(_with_processes(c, request) for c in clusters), notes


def _with_processes(cluster: ClusterFacts, request: PlanRequest) -> ClusterFacts:
    """A CPU has no number of devices: gpu_count is the number of processes, which share the machines."""
    wanted = request.distributed.gpu_count
    if wanted is None or not is_cpu(cluster.accelerator):
        return cluster
    return with_processes(cluster, ceil(wanted / cluster.nodes))


def _absent_data(request: PlanRequest, folder: Path) -> list[str]:
    """Data that looks like a file and is not here: it may be where the run will be, so this is only said."""
    written = [d.path for d in request.datasets if d.path is not None]
    absent = [w for w in written if looks_local(w) and not find(w, folder).exists()]
    return [f"dataset.path {w} is not here: the run needs it where it is launched" for w in absent]


def looks_local(written: str) -> bool:
    """By its beginning or its ending; hub ids and addresses have neither."""
    if "://" in written or any(c in written for c in "*?["):
        return False
    return written.startswith((".", "/", "~")) or Path(written).suffix.lower() in DATA_SUFFIXES


def _locked_data(request: PlanRequest, path: Path, *, frozen: bool) -> tuple[DataFacts, ...]:
    """What the lock knows of each dataset, in the spec's order. Datasets it does not name are unknown."""
    known: dict[str | None, DataFacts] = {}
    if path.is_file():
        text = read_bytes(path, "the lock").decode("utf-8", "replace")
        known = {d.path: d for d in parse_lock(text)}
    missing = [d.path for d in request.datasets if d.path not in known]
    if frozen and missing:
        names = ", ".join(str(m) for m in missing)
        message = f"--frozen, but {path.name} does not hold: {names}"
        raise UserError(Diagnostic(message=message, file=str(path), fix="run axoc lock and commit the result"))
    return tuple(known.get(d.path, DataFacts(path=d.path)) for d in request.datasets)


def _config_text(request: PlanRequest, folder: Path) -> str | None:
    written = request.distributed.config_path
    if written is None:
        return None
    return read_bytes(find(written, folder), "distributed.config_path").decode("utf-8", "replace")


def _plugin(root: Path, written: str) -> dict[str, bytes]:
    """Sources of a plugin's folder, by POSIX path. Raises UserError where there is no such folder."""
    if not root.is_dir():
        fix = "name a folder that holds a Python package with a pyproject.toml"
        raise UserError(Diagnostic(message="plugins: no such folder", file=written, fix=fix))
    wanted = (p for p in sorted(root.rglob("*")) if p.is_file() and p.suffix in PLUGIN_SUFFIXES)
    kept = (
        p
        for p in wanted
        if not any(
            part.startswith(".") or part.endswith((".egg-info", "__pycache__")) or part == "build"
            for part in p.relative_to(root).parts
        )
        and p.relative_to(root).parts[0] != "tests"
    )
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in kept}
