"""What launch.sh cannot do well in shell: digests, JSON, locks. Standard library only; changes nothing but its output.

python helper.py COMMAND BUNDLE [ARGUMENT]
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

MANIFEST: Final = "axoc.bundle.json"
ALTERED: Final = 10
LOCK_DESCRIPTOR: Final = 9
BUILT_HERE: Final = ("deepspeed", "rouge-score")
"""Packages without wheels. They are built after all others, with what is then installed: deepspeed imports torch."""


def verify(bundle: Path) -> int:
    """Prints a line for each altered, missing or extra file; 10 where there is one."""
    try:
        manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
        problems = manifest_problems(bundle, manifest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        problems = [f"unreadable: {MANIFEST}"]
    print("".join(f"  {problem}\n" for problem in problems), end="", file=sys.stderr)
    return ALTERED if problems else 0


def manifest_problems(bundle: Path, manifest: dict[str, Any]) -> list[str]:
    files, folders = manifest["files"], manifest["owned_folders"]
    listing = json.dumps(files, indent=2, ensure_ascii=False) + "\n"
    problems = [] if digest(listing.encode()) == manifest["bundle_digest"] else [f"altered: {MANIFEST}"]
    for name, expected in files.items():
        if not (bundle / name).is_file():
            problems.append(f"missing: {name}")
        elif digest((bundle / name).read_bytes()) != expected:
            problems.append(f"altered: {name}")
    return problems + [f"extra: {name!a}" for name in extra_files(bundle, folders) if name not in files]


def extra_files(bundle: Path, folders: list[str]) -> list[str]:
    """All files of the owned folders. Bytecode is deleted first: Python would run it in place of the checked source."""
    for folder in folders:
        for cache in sorted((bundle / folder).rglob("__pycache__")):
            shutil.rmtree(cache, ignore_errors=True)
    found = (path for folder in folders for path in (bundle / folder).rglob("*") if not path.is_dir())
    return sorted(path.relative_to(bundle).as_posix() for path in found if path.name != ".DS_Store")


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def output_dir(bundle: Path) -> int:
    """Prints where the run writes, absolute, as the runtime resolves it."""
    try:
        job = json.loads((bundle / "job.json").read_text(encoding="utf-8"))
        base, out = Path(os.environ.get("AXOC_BASE_DIR") or bundle / job["base_dir"]), job["output_dir"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"axoc: job.json cannot be read: {error}", file=sys.stderr)
        return 1
    print((base / out).resolve())
    return 0


def base_dir(bundle: Path) -> int:
    """Prints the folder that relative paths of the spec count from, absolute."""
    job = json.loads((bundle / "job.json").read_text(encoding="utf-8"))
    print(Path(os.environ.get("AXOC_BASE_DIR") or bundle / job["base_dir"]).resolve())
    return 0


def is_here(_: Path, host: str) -> int:
    """0 where ``host`` is a name or an address of this machine: only those can be listened on."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return 1
    return 0 if any(_can_listen(family, address) for family, _, _, _, address in found) else 1


def _can_listen(family: int, address: Any) -> bool:
    try:
        with socket.socket(family) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def lock_digest(bundle: Path) -> int:
    """Prints the name of the environment: first 16 digits of the lock's digest, and Python's version."""
    text = (bundle / "requirements.lock").read_bytes()
    print(f"{hashlib.sha256(text).hexdigest()[:16]}-py{sys.version_info.major}{sys.version_info.minor}")
    return 0


def plugins_digest(bundle: Path) -> int:
    """Prints the name of the folder for the installed plugins: a digest of their files, and Python's version."""
    paths = extra_files(bundle, ["plugins"])
    listing = "".join(f"{digest((bundle / path).read_bytes())} {path}\n" for path in paths)
    print(f"{hashlib.sha256(listing.encode()).hexdigest()[:16]}-py{sys.version_info.major}{sys.version_info.minor}")
    return 0


def split_lock(bundle: Path, out: str) -> int:
    """Writes torch.txt, wheels.txt and sources.txt into ``out``: the three passes of the installation."""
    lines = (bundle / "requirements.lock").read_text(encoding="utf-8").splitlines(keepends=True)
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", "".join(line for line in lines if not line.startswith("#")))[1:]
    parts: dict[str, list[str]] = {"torch": [], "wheels": [], "sources": []}
    for entry in entries:
        name = entry.split("==")[0]
        parts["torch" if name == "torch" else "sources" if name in BUILT_HERE else "wheels"].append(entry)
    for part, found in parts.items():
        (Path(out) / f"{part}.txt").write_text("".join(found), encoding="utf-8")
    return 0


def cores(_: Path) -> int:
    """Prints how many cores this process may use."""
    print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    return 0


def wait_for_lock(_: Path) -> int:
    """Locks the file open as descriptor 9. The lock belongs to the shell's open file, so it outlives this process."""
    try:
        fcntl.flock(LOCK_DESCRIPTOR, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("axoc: another launch is making this environment; waiting for it", file=sys.stderr)
        fcntl.flock(LOCK_DESCRIPTOR, fcntl.LOCK_EX)
    return 0


COMMANDS: Final[dict[str, Callable[..., int]]] = {
    "verify": verify,
    "output-dir": output_dir,
    "base-dir": base_dir,
    "is-here": is_here,
    "lock-digest": lock_digest,
    "plugins-digest": plugins_digest,
    "split-lock": split_lock,
    "cores": cores,
    "wait-for-lock": wait_for_lock,
}


if __name__ == "__main__":
    sys.exit(COMMANDS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:]))
