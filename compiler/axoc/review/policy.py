"""Policy as code: clauses of the spec, or of files an organisation keeps. Checked before anything is written.

Exit code 5, with every clause that is broken by file and line. What cannot be judged is not let through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from axoc.emit.placement import BASE_IMAGES, placement
from axoc.emit.requirements import requirements_lock, split_entries
from axoc.errors import Diagnostic, UserError
from axoc.inputs import read_bytes
from axoc.ir.plan import Plan
from axoc.ir.request import PolicyRequest
from axoc.spec.decode import decode
from axoc.spec.document import read_document
from axoc.spec.load import load_policy
from axoc.units import duration

SECONDS_PER_HOUR: Final = 3600
LOCAL_TRACKERS: Final = ("tensorboard",)
"""They write files; the others may send them to a service."""
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
NO_CLAUSES: Final = ("objective", "memory_safety", "usd_per_hour")
"""Keys of a policy that steer the planner: they belong into a spec."""
Broken = tuple[str, str]
"""What was found, and the smallest fix."""


class PolicyError(UserError):
    """The plan breaks a clause. Exit code 5."""

    exit_code = 5


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Clauses of one file, and the line of each."""

    policy: PolicyRequest
    file: str
    lines: Mapping[str, int]


def rules_of_spec(plan: Plan, text: str, file: str) -> Rules:
    return Rules(policy=plan.request.policy, file=file, lines=_lines(text, file))


def rules_of_file(path: Path) -> Rules:
    """An organisation's file: a spec with nothing but a policy. Raises UserError."""
    content = read_bytes(path, "the policy")
    text = decode(content, str(path))
    document = read_document(text, str(path))
    more = [k for k in document.values if k not in ("policy", "version")]
    policy = document.values.get("policy")
    steering = [k for k in NO_CLAUSES if isinstance(policy, dict) and k in policy]
    problems = [_misplaced(k, str(path), document.keys[(k,)].line) for k in more]
    problems += [_misplaced(f"policy.{k}", str(path), document.keys[("policy", k)].line) for k in steering]
    if problems:
        raise UserError(*problems)
    return Rules(policy=load_policy(content, str(path)), file=str(path), lines=_lines(text, str(path)))


def _misplaced(key: str, file: str, line: int) -> Diagnostic:
    expected = "policy: with limits only, e.g. policy: {max_cost_usd: 500}"
    return Diagnostic(message=f"{key} is no clause", file=file, line=line, expected=expected, fix="move it into a spec")


def _lines(text: str, file: str) -> dict[str, int]:
    keys = read_document(text, file).keys
    return {str(k[1]): place.line for k, place in keys.items() if len(k) == 2 and k[0] == "policy"}


def enforce(plan: Plan, *rules: Rules) -> None:
    """Raises PolicyError with every clause of every file that the plan breaks, or that cannot be judged."""
    broken = [d for one in rules for clause, check in CLAUSES.items() for d in _judged(plan, one, clause, check)]
    if broken:
        raise PolicyError(*broken)


def _judged(plan: Plan, rules: Rules, clause: str, check: Callable[[Plan, Any], Iterator[Broken]]) -> list[Diagnostic]:
    limit = getattr(rules.policy, clause)
    if limit in (None, (), False):
        return []
    shown = SHOWN.get(clause, _plain)(limit)
    return [
        Diagnostic(
            message=f"policy.{clause} is {shown}, but {found}", file=rules.file, line=rules.lines.get(clause), fix=fix
        )
        for found, fix in check(plan, limit)
    ]


def _plain(limit: Any) -> str:
    if limit is True:
        return "true"
    return ", ".join(limit) if isinstance(limit, tuple) else f"{limit:g}"


def _dollars(limit: float) -> str:
    return f"${limit:,.2f}"


# --- the clauses: what of a plan breaks each


def _gpus(plan: Plan, most: int) -> Iterator[Broken]:
    used = plan.chosen.candidate.world_size
    if used > most:
        yield f"the plan uses {used}", f"set distributed.gpu_count: {most}"


def _cost(plan: Plan, most: float) -> Iterator[Broken]:
    cost = plan.chosen.estimate.time.cost_usd
    if cost is None:
        yield "the cost is not known", _KNOW
    elif cost > most:
        yield f"the run would cost ${cost:,.2f}", _less(plan, "max_cost_usd", most)


def _hours(plan: Plan, most: float) -> Iterator[Broken]:
    seconds = plan.chosen.estimate.time.total_seconds
    if seconds is None:
        yield "how long the run takes is not known", _KNOW
    elif seconds > most * SECONDS_PER_HOUR:
        yield f"the run would take {duration(seconds)}", _less(plan, "max_hours", most)


def _images(plan: Plan, allowed: tuple[str, ...]) -> Iterator[Broken]:
    image = BASE_IMAGES.get(placement(plan).profile)
    if image is None:
        yield "the Dockerfile takes any image as --build-arg BASE", "plan for an NVIDIA accelerator or a CPU"
    elif not any(fnmatchcase(image, a) for a in allowed):
        yield f"the Dockerfile builds on {image}", f"allow {image}"


def _registries(plan: Plan, allowed: tuple[str, ...]) -> Iterator[Broken]:
    image = BASE_IMAGES.get(placement(plan).profile)
    if image is None:
        yield "the Dockerfile takes an image of any registry", "plan for an NVIDIA accelerator or a CPU"
    elif not any(f"{full_name(image)}/".startswith(f"{a.rstrip('/')}/") for a in allowed):
        yield f"the Dockerfile builds on {full_name(image)}", f"allow {full_name(image).partition('/')[0]}"


def full_name(image: str) -> str:
    """With the registry that a short name leaves out, as the container tools complete it."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"


def _licenses(plan: Plan, allowed: tuple[str, ...]) -> Iterator[Broken]:
    found = plan.model.license
    if found == "unknown":
        yield f"the licence of {plan.model.id} is not known", "take a model of the catalog: axoc knows their licences"
    elif not any(fnmatchcase(found.lower(), a.lower()) for a in allowed):
        yield f"{plan.model.id} has the licence {found}", "take another model, or have the licence allowed"


def _remote_code(plan: Plan, _: bool) -> Iterator[Broken]:
    if plan.request.model.trust_remote_code:
        yield "the spec trusts code of the model's repository", "set model.trust_remote_code: false"
    for plugin in plan.request.plugins:
        yield f"the spec has the plugin {plugin}", "remove it from plugins, or have its code become axoc's"


def _telemetry(plan: Plan, _: bool) -> Iterator[Broken]:
    sending = [t for t in plan.request.tracking if t not in LOCAL_TRACKERS]
    if sending:
        yield f"tracking has {', '.join(sending)}, which may send to a service", "set tracking: [tensorboard]"


def _pins(plan: Plan, wanted: tuple[str, ...]) -> Iterator[Broken]:
    model, image = plan.request.model, placement(plan).profile
    if "model" in wanted and model.looks_remote and not COMMIT.fullmatch(model.revision or ""):
        yield (
            f"model.revision is {model.revision or 'not set'}",
            "set model.revision to a commit of 40 hexadecimal digits",
        )
    for data in plan.data if "data" in wanted else ():
        if data.sha256 is None:
            yield f"the lock holds no digest of {data.path}", "run axoc lock and commit the lock"
    if "packages" in wanted:
        loose = [e.split(maxsplit=1)[0] for e in split_entries(requirements_lock(image)) if "--hash=" not in e]
        if loose or image == "rocm":
            yield f"{', '.join(loose) or 'torch for ROCm'} has no hash in requirements.lock", "plan for a CPU or NVIDIA"


CLAUSES: Final[Mapping[str, Callable[[Plan, Any], Iterator[Broken]]]] = {
    "max_gpus": _gpus,
    "max_cost_usd": _cost,
    "max_hours": _hours,
    "allowed_images": _images,
    "allowed_registries": _registries,
    "allowed_licenses": _licenses,
    "no_remote_code": _remote_code,
    "no_telemetry": _telemetry,
    "required_pins": _pins,
}
SHOWN: Final[Mapping[str, Callable[[Any], str]]] = {"max_cost_usd": _dollars}
_KNOW: Final = "run axoc lock, or set training.max_steps; give a price in an inventory file where none is known"


def _less(plan: Plan, clause: str, most: float) -> str:
    """A clause of the spec has steered the planner already; one of another file has not."""
    less = "fewer epochs or steps, an adapter, or other hardware"
    known = getattr(plan.request.policy, clause)
    return (
        less
        if known is not None and known <= most
        else f"set policy.{clause}: {most:g} in the spec, so that it is planned for; or {less}"
    )
