"""Makes templates/axoc_templates/locks/*.lock and tools/engines.lock anew from the *.in files beside them. Needs uv and the network.

    python tools/update_locks.py [--uv PATH]

The CPU lock is then changed by hand-written rules: no CUDA packages, and torch's own CPU build on x86-64 Linux, where
PyPI's wheel is the 0.5 GB CUDA build, which cannot even be imported without the CUDA packages.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

LOCKS: Final = Path(__file__).resolve().parent.parent / "templates" / "axoc_templates" / "locks"
TOOLS_ENGINES: Final = Path(__file__).resolve().parent / "engines.in"
OLDEST_PYTHON: Final = "3.11"
PLATFORM_OPTIONS: Final = {
    "cpu": ["--universal"],
    "cuda": ["--python-platform", "x86_64-unknown-linux-gnu"],
}
PARTS: Final = {"cpu": ("export",), "cuda": ("export", "flash")}
"""What a bundle has on top where its plan asks for it: tools of exports, flash attention 4."""
CUDA_ONLY: Final = re.compile(r"(triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==")
CPU_BUILD_MARKER: Final = "sys_platform == 'linux' and platform_machine == 'x86_64'"
OTHER_BUILD_MARKER: Final = "sys_platform != 'linux' or platform_machine != 'x86_64'"
HEADER: Final = "# Made by tools/update_locks.py from {}. Do not edit: see README.md beside it.\n"
LEFT_OUT: Final = ("openvino-telemetry",)
"""Reports to Google Analytics what is converted; openvino does without it where it is not there."""
BUILD: Final = re.compile(r"(?<===)([^\s+;]+)\+[a-z0-9.]+")
"""Of a requirement: the version, and the part that names a build of it."""
CPU_WHEELS: Final = {
    "2.13.0": (
        "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",  # cp311
        "4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2",  # cp312
        "3fbf9c9d1f3c10c2d59d04aca426dee9ccc6ceb32d255c61e93acc3b4f75fae6",  # cp313
    ),
}
"""SHA-256 of torch's manylinux x86-64 CPU wheels, as listed at https://download.pytorch.org/whl/cpu/torch/."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uv", default="uv", help="the uv executable")
    uv = parser.parse_args().uv
    for profile in PLATFORM_OPTIONS:
        lock = compiled(uv, profile)
        (LOCKS / f"{profile}.lock").write_text(finished(profile, lock), encoding="utf-8")
        print(f"{profile}.lock: {len(entries(lock))} packages resolved")
        for part in PARTS[profile]:
            more = further_entries(uv, profile, part)
            (LOCKS / f"{profile}-{part}.lock").write_text(HEADER.format(f"{profile}.in and {part}.in") + "".join(more))
            print(f"{profile}-{part}.lock: {len(more)} packages on top")
    TOOLS_ENGINES.with_suffix(".lock").write_text(HEADER.format("engines.in") + engine_entries(uv), encoding="utf-8")
    return 0


def engine_entries(uv: str) -> str:
    """What targets' files are checked with: nothing of a bundle, so no rules of ours."""
    command = [
        uv,
        "pip",
        "compile",
        str(TOOLS_ENGINES),
        "--generate-hashes",
        "--no-annotate",
        "--no-header",
        "--universal",
    ]
    command += ["--python-version", OLDEST_PYTHON]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def further_entries(uv: str, profile: str, part: str) -> list[str]:
    """What ``part`` needs on top of ``<profile>.lock``, whose versions stay: a bundle's lock is the one with the other behind it."""
    lock = entries((LOCKS / f"{profile}.lock").read_text(encoding="utf-8"))
    base = {name_of(entry) for entry in lock}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
        pins.write("".join(BUILD.sub(r"\1", entry.splitlines()[0].removesuffix(" \\")) + "\n" for entry in lock))
        pins.flush()
        found = entries(compiled(uv, profile, str(LOCKS / f"{part}.in"), "--constraint", pins.name))
    kept = [e for e in found if name_of(e) not in base and name_of(e) not in LEFT_OUT]
    return cpu_entries(kept) if profile == "cpu" else kept


def name_of(entry: str) -> str:
    return entry.split("==")[0]


def compiled(uv: str, profile: str, *more: str) -> str:
    """uv's resolution of ``<profile>.in``, with a hash of every wheel."""
    command = [uv, "pip", "compile", str(LOCKS / f"{profile}.in"), "--generate-hashes", "--no-annotate", "--no-header"]
    command += ["--python-version", OLDEST_PYTHON, *PLATFORM_OPTIONS[profile], *more]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def finished(profile: str, lock: str) -> str:
    """The lock as it is committed: a header of ours, and the CPU rules for the CPU lock."""
    kept = cpu_entries(entries(lock)) if profile == "cpu" else entries(lock)
    return HEADER.format(f"{profile}.in") + "".join(kept)


def cpu_entries(found: list[str]) -> list[str]:
    """Without CUDA packages, and with torch twice: its CPU build where there is one, PyPI's elsewhere."""
    kept = []
    for entry in found:
        if not CUDA_ONLY.match(entry):
            kept += torch_entries(entry) if entry.startswith("torch==") else [entry]
    return kept


def torch_entries(entry: str) -> list[str]:
    """The CPU build for x86-64 Linux, and ``entry`` itself for all other machines."""
    requirement, _, hashes = entry.partition(" \\\n")
    version = requirement.removeprefix("torch==").split(" ")[0]
    cpu_hashes = " \\\n".join(f"    --hash=sha256:{digest}" for digest in CPU_WHEELS[version])
    return [
        f"torch=={version}+cpu ; {CPU_BUILD_MARKER} \\\n{cpu_hashes}\n",
        f"torch=={version} ; {OTHER_BUILD_MARKER} \\\n{hashes}",
    ]


def entries(lock: str) -> list[str]:
    """The requirements of a lock, each with its hashes; comments are left out."""
    lines = (line for line in lock.splitlines(keepends=True) if not line.startswith("#"))
    return re.split(r"(?m)^(?=[A-Za-z0-9])", "".join(lines))[1:]


if __name__ == "__main__":
    sys.exit(main())
