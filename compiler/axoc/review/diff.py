"""`axoc diff`: what was changed, what the planner made of it, and what that does to memory, time and money."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from axoc.errors import UserError
from axoc.ir.canonical import to_plain
from axoc.ir.request import PlanRequest
from axoc.review.sides import Side
from axoc.spec.load import load_spec

GIVEN: Final = ("user", "default")
"""Sources of decisions that were not axoc's: they are inputs."""
LISTED: Final = ("spec.yaml", "spec.lock", "requirements.lock", "plan.json", "job.json", "PLAN.md", "report.html")
"""Files whose change is told by meaning elsewhere, or follows from it."""
PIN: Final = re.compile(r"(?m)^([A-Za-z0-9._-]+)==([^\s;\\]+)")
MISSING: Final = "(absent)"


@dataclass(frozen=True, kw_only=True)
class Change:
    field: str
    old: Any
    new: Any
    because: str = ""
    """Of the new value, where axoc chose it."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One prediction on both sides; None where it is not known."""

    name: str
    old: float | None
    new: float | None
    unit: str
    """bytes | seconds | usd | per_second | share | number"""


@dataclass(frozen=True, kw_only=True)
class Difference:
    inputs: tuple[Change, ...]
    """Spec, data, inventory, versions: what people changed."""
    choices: tuple[Change, ...]
    """What the planner now chooses otherwise."""
    figures: tuple[Figure, ...]
    """All of them, changed or not."""
    training: tuple[Change, ...]
    """Of the training contract: where there is one, the run does not train the same."""
    packages: tuple[Change, ...]
    configs: tuple[Change, ...]
    """Keys of the DeepSpeed or FSDP configuration."""
    warnings_new: tuple[str, ...]
    warnings_gone: tuple[str, ...]
    files: tuple[Change, ...]
    """Other files of the bundle: added, removed or changed."""
    causes_known: bool
    """Both sides hold their spec, so that the inputs are all there are."""
    resumes: str | None
    """Why a checkpoint of the old plan cannot be gone on from; None where it can."""

    @property
    def empty(self) -> bool:
        """Nothing that a reviewer would have to look at."""
        told = (self.inputs, self.choices, self.training, self.packages, self.configs, self.files)
        moved = any(f.old != f.new for f in self.figures)
        return not any(told) and not moved and not self.warnings_new and not self.warnings_gone


def difference(old: Side, new: Side) -> Difference:
    inputs = tuple(_inputs(old, new))
    was, now = set(old.plan.get("warnings", [])), set(new.plan.get("warnings", []))
    return Difference(
        inputs=inputs,
        choices=tuple(_choices(old.plan, new.plan)),
        figures=tuple(_figures(old.plan, new.plan)),
        training=tuple(_training(old.plan, new.plan)),
        packages=tuple(_packages(old, new)),
        configs=tuple(_configs(old, new)),
        warnings_new=tuple(sorted(now - was)),
        warnings_gone=tuple(sorted(was - now)),
        files=tuple(_files(old, new)),
        causes_known=all(_request(side) is not None for side in (old, new)),
        resumes=_resumes(old.plan, new.plan),
    )


# --- what was changed


def _inputs(old: Side, new: Side) -> Iterator[Change]:
    was, now = _request(old), _request(new)
    if was is not None and now is not None:
        yield from changes(_as_written(was), _as_written(now), skip=("explicit",))
    elif old.plan["spec_digest"] != new.plan["spec_digest"]:
        yield from _given(old.plan, new.plan)
    if old.inventory is not None and new.inventory is not None and old.inventory != new.inventory:
        yield Change(field="inventory", old=old.inventory, new=new.inventory)
    yield from _locked(old, new)
    if old.plan.get("axoc_version") != new.plan.get("axoc_version"):
        yield Change(field="axoc", old=old.plan.get("axoc_version"), new=new.plan.get("axoc_version"))


def _as_written(request: PlanRequest) -> dict[str, Any]:
    """By the spec's names; a single dataset without its index."""
    values = flat(to_plain(request))
    if len(request.datasets) > 1:
        return values
    return {re.sub(r"^datasets\.0\b", "dataset", name): value for name, value in values.items()}


def _request(side: Side) -> PlanRequest | None:
    """The bundle's own spec; None where it has none or this axoc reads it no longer."""
    try:
        return load_spec(side.texts["spec.yaml"].encode(), "spec.yaml")
    except (KeyError, UserError):
        return None


def _given(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    """Of plans without their specs: the decisions that were set, or left at the spec's default."""
    was, now = decided(old), decided(new)
    for field, decision in now.items():
        before = was.get(field)
        if before and decision["source"] in GIVEN and before["value"] != decision["value"]:
            yield Change(field=field, old=before["value"], new=decision["value"])


def _locked(old: Side, new: Side) -> Iterator[Change]:
    """The data's digests and rows. Paths are the spec's, and told there."""
    import yaml

    def facts(side: Side) -> dict[str, Any]:
        try:
            return flat({"data": yaml.safe_load(side.texts["spec.lock"])["datasets"]})
        except (KeyError, TypeError, yaml.YAMLError):
            return {}

    was, now = facts(old), facts(new)
    if was and now:
        yield from (c for c in changes(was, now) if not c.field.endswith(".path"))


# --- what follows


def decided(plan: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {d["field"]: d for d in plan["decisions"]}


def _choices(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    was, now = decided(old), decided(new)
    for field, decision in now.items():
        before = was.get(field, {}).get("value", MISSING)
        chosen = decision["source"] not in GIVEN or was.get(field, {}).get("source") not in (*GIVEN, None)
        if before != decision["value"] and chosen:
            yield Change(field=field, old=before, new=decision["value"], because=decision["because"])
    layers = [side["plan"].get("checkpointed_layers") for side in (old, new)]
    kinds = [side["plan"].get("gradient_checkpointing") for side in (old, new)]
    if layers[0] != layers[1] and kinds[0] == kinds[1]:
        yield Change(field="checkpointed_layers", old=layers[0], new=layers[1])


def _figures(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Figure]:
    wanted = (
        ("memory used on a device", ("estimate", "memory", "device_used_bytes"), "bytes"),
        ("memory limit of a device", ("estimate", "memory", "capacity_bytes"), "bytes"),
        ("host memory of a node", ("estimate", "memory", "host_bytes"), "bytes"),
        ("disk of a node", ("estimate", "memory", "disk_bytes"), "bytes"),
        ("one step", ("estimate", "step_seconds"), "seconds"),
        ("tokens a second", ("estimate", "tokens_per_second"), "per_second"),
        ("model FLOPs utilization", ("estimate", "mfu"), "share"),
        ("steps", ("estimate", "total_steps"), "number"),
        ("whole run", ("estimate", "total_seconds"), "seconds"),
        ("cost", ("estimate", "cost_usd"), "usd"),
        ("cost at spot prices", ("estimate", "spot_cost_usd"), "usd"),
        ("accelerators", ("plan", "world_size"), "number"),
    )
    for name, path, unit in wanted:
        yield Figure(name=name, old=_at(old, path), new=_at(new, path), unit=unit)


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _training(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    """Of what both contracts speak of: one that another version of axoc wrote may say less."""
    both = [side.get("training_contract") or {} for side in (old, new)]
    was, now = (flat({k: v for k, v in side.items() if all(k in other for other in both)}) for side in both)
    yield from changes(was, now, skip=("digest", "lr_schedule_digest", "global_batch_is_set"))
    if was.get("lr_schedule_digest") != now.get("lr_schedule_digest"):
        yield Change(field="learning rate schedule", old="as before", new="another")


def _resumes(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    rule, plan = old.get("resume"), new["plan"]
    if not rule:
        return None
    strategies, worlds = rule.get("strategies", []), rule.get("world_sizes", [])
    if plan["strategy"] not in strategies:
        return f"the old plan's checkpoints can be resumed by {', '.join(strategies)}: {rule.get('because', '')}"
    if plan["world_size"] not in worlds:
        sizes = ", ".join(map(str, worlds))
        return f"the old plan's checkpoints can be resumed by {sizes} processes: {rule.get('because', '')}"
    return None


# --- files


def _packages(old: Side, new: Side) -> Iterator[Change]:
    was, now = (dict(PIN.findall(side.texts.get("requirements.lock", ""))) for side in (old, new))
    yield from changes(was, now) if was and now else ()


def _configs(old: Side, new: Side) -> Iterator[Change]:
    names = sorted({n for side in (old, new) for n in side.texts if n.startswith("config/")})
    for name in names:
        was, now = (_flat_json(side.texts.get(name)) for side in (old, new))
        if was is None or now is None:
            if old.texts and new.texts:
                there = ["present" if side is not None else MISSING for side in (was, now)]
                yield Change(field=name, old=there[0], new=there[1])
        else:
            yield from (Change(field=f"{name}: {c.field}", old=c.old, new=c.new) for c in changes(was, now))


def _flat_json(text: str | None) -> dict[str, Any] | None:
    try:
        return None if text is None else flat(json.loads(text))
    except ValueError:
        return None


def _files(old: Side, new: Side) -> Iterator[Change]:
    """The runtime's files count as one: with another version of axoc they all change."""
    if not old.digests or not new.digests:
        return
    told = {*LISTED, *(n for side in (old, new) for n in side.texts)}
    where = {
        name: name.split("/")[0] + "/" if name.startswith("runtime/") else name for name in {*old.digests, *new.digests}
    }
    for place in sorted({where[name] for name in where if name not in told}):
        names = [name for name in where if where[name] == place]
        was, now = ([side.digests.get(name) for name in names] for side in (old, new))
        if was != now:
            there = [MISSING if not any(found) else "present" for found in (was, now)]
            yield Change(field=place, old=there[0], new="changed" if there[0] == there[1] else there[1])


# --- values


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested objects and lists by dotted path; empty ones as they are."""
    if isinstance(value, dict) and value:
        items = [(str(k), v) for k, v in value.items()]
    elif isinstance(value, list) and value and any(isinstance(v, (dict, list)) for v in value):
        items = [(str(i), v) for i, v in enumerate(value)]
    else:
        return {prefix: value}
    found: dict[str, Any] = {}
    for name, item in items:
        found |= flat(item, f"{prefix}.{name}" if prefix else name)
    return found


def changes(old: Mapping[str, Any], new: Mapping[str, Any], skip: tuple[str, ...] = ()) -> Iterator[Change]:
    """In the order of the new side, then what only the old one has."""
    for field in [*new, *(f for f in old if f not in new)]:
        was, now = old.get(field, MISSING), new.get(field, MISSING)
        if was != now and field.split(".")[0] not in skip:
            yield Change(field=field, old=was, new=now)
