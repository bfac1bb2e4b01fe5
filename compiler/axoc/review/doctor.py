"""`axoc doctor`: what is installed, versions against the matrix, GPUs, memory, disk and hub; each problem with its fix."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from axoc import __version__
from axoc.errors import UserError
from axoc.facts import detect
from axoc.facts.machine import inventory_name
from axoc.review.explain import plan_of_bundle
from axoc.search.rules.versions import PINS
from axoc.units import GIB, gib

HUB: Final = "https://huggingface.co"
TIMEOUT_SECONDS: Final = 5
LEAST_DISK_BYTES: Final = 20 * GIB
"""An environment with CUDA's libraries and a small model; a bundle says what it needs itself."""
LEAST_SHARED_BYTES: Final = GIB
"""Of /dev/shm, through which NCCL and loaders pass data; containers get 64 MiB."""
CUDA_DRIVER: Final = 580
"""The first branch of NVIDIA's drivers that runs CUDA 13, which the lock's torch is built for (CUDA's release notes)."""
NEEDED: Final = ("torch", "transformers", "accelerate", "datasets", "peft", "axoc-runtime")
"""Without these nothing runs; the other libraries of the matrix are for some plans."""
PROGRAM: Final = """
import importlib.metadata as m, json, sys
def version(n):
    try: return m.version(n)
    except m.PackageNotFoundError: return None
print(json.dumps({"python": list(sys.version_info[:3]), "versions": {n: version(n) for n in sys.argv[1:]}}))
"""


@dataclass(frozen=True, kw_only=True)
class Finding:
    what: str
    state: str
    """``ok`` | ``note`` | ``problem``"""
    found: str
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Asked:
    bundle: Path | None
    python: str
    offline: bool


def findings(asked: Asked) -> list[Finding]:
    """All of them, in the order in which a run would meet them. Raises UserError where the bundle is none."""
    plan = None if asked.bundle is None else plan_of_bundle(asked.bundle)
    checks: tuple[Callable[[Asked, Mapping[str, Any] | None], Iterator[Finding]], ...] = (
        _environment,
        _programs,
        _devices,
        _host,
        _disk,
        _hub,
    )
    return [found for check in checks for found in check(asked, plan)]


# --- one function a part of the machine


def _environment(asked: Asked, plan: Mapping[str, Any] | None) -> Iterator[Finding]:
    told = environment_of(asked.python)
    if told is None:
        yield _problem(
            "Python", f"{asked.python} cannot be run", "pass --python with the path of a Python 3.11 to 3.13"
        )
        return
    version = ".".join(map(str, told["python"]))
    supported = (3, 11) <= tuple(told["python"][:2]) <= (3, 13)
    yield _judged("Python", supported, f"{version} ({asked.python})", "use Python 3.11, 3.12 or 3.13")
    yield Finding(what="axoc", state="ok", found=__version__)
    for name, wanted in PINS.items():
        yield _library(name, told["versions"].get(name), wanted)


def environment_of(python: str) -> Mapping[str, Any] | None:
    """Versions that a Python has, asked of itself; None where it cannot be run."""
    try:
        done = subprocess.run([python, "-c", PROGRAM, *PINS], capture_output=True, text=True, timeout=60, check=True)
        found: Mapping[str, Any] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return found


def _library(name: str, found: str | None, wanted: tuple[str, ...]) -> Finding:
    matrix = " or ".join(wanted)
    fix = (
        "./bundle/launch.sh --install makes the environment that the lock pins; or pip install "
        + f"{name}=={wanted[0]}"
    )
    if found is None:
        state = "problem" if name in NEEDED else "note"
        return Finding(what=name, state=state, found=f"not installed; the matrix has {matrix}", fix=fix)
    if found.partition("+")[0] not in wanted:
        return Finding(what=name, state="problem", found=f"{found}; the matrix has {matrix}", fix=fix)
    return Finding(what=name, state="ok", found=found)


def _programs(asked: Asked, plan: Mapping[str, Any] | None) -> Iterator[Finding]:
    """launch.sh is bash; Triton and DeepSpeed's own operations need a compiler."""
    for name, needed, why in (("bash", True, "launch.sh runs in it"), ("cc", False, "Triton compiles its launcher")):
        path = shutil.which(name)
        if path:
            yield Finding(what=name, state="ok", found=path)
        else:
            state = "problem" if needed else "note"
            yield Finding(
                what=name, state=state, found=f"not here: {why}", fix=f"install {'gcc' if name == 'cc' else name}"
            )


def _devices(asked: Asked, plan: Mapping[str, Any] | None) -> Iterator[Finding]:
    wanted = None if plan is None else plan["plan"]
    named, output = inventory_name(), detect.smi()
    if output is None:
        needs = wanted is not None and wanted["accelerator"] != "cpu"
        state, fix = (
            ("problem", "plan for this machine with --inventory cpu, or go where the GPUs are")
            if needs
            else ("note", "")
        )
        yield Finding(what="GPUs", state=state, found="no working nvidia-smi: plans for a CPU run here", fix=fix)
        return
    try:
        detect.parse_devices(output)
    except UserError as error:
        yield _problem("GPUs", error.diagnostics[0].message, str(error.diagnostics[0].fix))
        return
    yield from _driver()
    yield Finding(what="GPUs", state="ok", found=f"{named or 'several kinds'}: plan with --inventory {named or 'FILE'}")
    if wanted is not None and named is not None:
        kind, _, number = named.partition(":")
        fits = wanted["accelerator"] == kind and wanted["world_size"] <= int(number)
        needs = f"the bundle is for {wanted['world_size']} x {wanted['accelerator']}"
        yield _judged("bundle's GPUs", fits, needs, f"plan again with --inventory {named}, or run on several nodes")


def _driver() -> Iterator[Finding]:
    version = detect.driver_version()
    if version is not None:
        fix = f"install a driver of branch {CUDA_DRIVER} or newer: the lock's torch is built for CUDA 13"
        yield _judged("driver", int(version.partition(".")[0]) >= CUDA_DRIVER, version, fix)


def _host(asked: Asked, plan: Mapping[str, Any] | None) -> Iterator[Finding]:
    total = detect.host_memory_gib() * GIB
    needed = 0 if plan is None else plan["estimate"]["memory"]["host_bytes"]
    said = gib(total) + (f", of which the bundle needs {gib(needed)}" if needed else "")
    yield _judged(
        "host memory", total >= needed, said, "plan with an inventory of this machine: axoc inventory > here.yaml"
    )
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        enough = size >= LEAST_SHARED_BYTES
        fix = "in a container: docker run --shm-size 16g"
        yield Finding(what="/dev/shm", state="ok" if enough else "note", found=gib(size), fix="" if enough else fix)


def _disk(asked: Asked, plan: Mapping[str, Any] | None) -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    needed = LEAST_DISK_BYTES if plan is None else plan["estimate"]["memory"]["disk_bytes"]
    what = "an environment and a small model take" if plan is None else "the bundle needs"
    fix = f"free {gib(max(0, needed - free))}, or work on another disk"
    yield _judged("disk", free >= needed, f"{gib(free)} free here; {what} {gib(needed)}", fix)


def _hub(asked: Asked, plan: Mapping[str, Any] | None) -> Iterator[Finding]:
    address = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    if asked.offline or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        yield Finding(what="hub", state="note", found="not asked: offline", fix="models and data must be local folders")
        return
    problem = unreachable(address)
    fix = "check proxy and firewall (HTTPS_PROXY), name a mirror in HF_ENDPOINT, or use local folders"
    yield _judged("hub", problem is None, f"{address} answers" if problem is None else f"{address}: {problem}", fix)


def unreachable(address: str) -> str | None:
    """Why there is no answer; None where there is one, even a refusal."""
    if not address.startswith(("https://", "http://")):
        return "not an address of the web"
    request = urllib.request.Request(address, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
            return None
    except urllib.error.HTTPError:
        return None
    except (TimeoutError, urllib.error.URLError, OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


# --- how it is told


def _judged(what: str, good: bool, found: str, fix: str) -> Finding:
    return Finding(what=what, state="ok" if good else "problem", found=found, fix="" if good else fix)


def _problem(what: str, found: str, fix: str) -> Finding:
    return Finding(what=what, state="problem", found=found, fix=fix)


MARKS: Final = {"ok": ("ok", "32"), "note": ("note", "33"), "problem": ("PROBLEM", "31")}


def as_text(found: list[Finding], *, color: bool = False) -> str:
    lines = []
    for one in found:
        word, code = MARKS[one.state]
        shown = f"\x1b[{code}m{word:<8}\x1b[0m" if color else f"{word:<8}"
        lines.append(f"{shown} {one.what:<14} {one.found}")
        if one.fix:
            lines.append(f"{'':<24}fix: {one.fix}")
    problems = sum(f.state == "problem" for f in found)
    lines.append(f"{problems} problem{'' if problems == 1 else 's'}." if problems else "Nothing is in the way.")
    return "\n".join(lines) + "\n"


def as_dict(found: list[Finding]) -> dict[str, Any]:
    problems = sum(f.state == "problem" for f in found)
    return {"schema_version": 1, "problems": problems, "findings": [asdict(f) for f in found]}
