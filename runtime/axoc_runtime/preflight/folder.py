"""What all hosts are to see alike: the bundle, and the folder that the run writes."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

from axoc_runtime.hosts.meeting import Meeting
from axoc_runtime.job import Job

PROBE: Final = ".axoc-probe-"
APPEARS_SECONDS: Final = 10.0
"""For a file of another host to be seen: network file systems keep what they know of a folder for some seconds."""
ANSWER_SECONDS: Final = 120.0


def bundle_digest(job: Job) -> str:
    """Of the files that the bundle's manifest names as they are here; of job.json alone where there is no manifest."""
    found = hashlib.sha256()
    for name in ("job.json", *_listed(job.bundle_dir)):
        with suppress(OSError):
            found.update(f"{name}\0".encode() + hashlib.sha256((job.bundle_dir / name).read_bytes()).digest())
    return f"sha256:{found.hexdigest()}"


def _listed(bundle: Path) -> list[str]:
    try:
        return sorted(json.loads((bundle / "axoc.bundle.json").read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def sees_shared_folder(job: Job, meeting: Meeting) -> list[str]:
    """By node what is wrong with its sight of the output folder: the first host writes a file there, and all look for it.
    Empty where nothing is."""
    probe, made, error = Path(), False, ""
    if meeting.node == 0:
        probe, made = job.output / f"{PROBE}{uuid.uuid4().hex}", not job.output.is_dir()
        try:
            job.output.mkdir(parents=True, exist_ok=True)
            probe.touch()
        except OSError as failure:
            error = f"cannot be written: {failure.strerror}"
    name = meeting.gather(probe.name, ANSWER_SECONDS)[0]
    if meeting.node:
        error = "" if _appears(job.output / name) else f"has no {name}, which {meeting.named(0)} wrote there"
    found = [str(e) for e in meeting.gather(error, ANSWER_SECONDS)]
    if meeting.node == 0:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
        if made:
            with suppress(OSError):
                job.output.rmdir()
    return found


def _appears(path: Path) -> bool:
    deadline = time.monotonic() + APPEARS_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        with suppress(OSError):
            list(path.parent.iterdir())  # a listing makes some clients ask the server again
        time.sleep(0.2)
    return True
