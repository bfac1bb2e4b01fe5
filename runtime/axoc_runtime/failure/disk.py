"""A full disk: which path, how much is needed, and what is still there to go on from."""

from __future__ import annotations

import errno
import re
import shutil
import traceback
from typing import Final

from axoc_runtime.checkpoint.complete import complete
from axoc_runtime.errors import EXIT_TRAINING, RuntimeFailure
from axoc_runtime.failure.activity import NOW
from axoc_runtime.failure.plan import ledger
from axoc_runtime.job import Job

GIB: Final = 1 << 30
FULL: Final = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "a file is too large",
}
TOLD: Final = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
    "PytorchStreamWriter failed writing": errno.ENOSPC,  # torch.save names no cause (caffe2/serialize/inline_container.cc)
}
"""Of libraries that wrap the system's error in their own: safetensors, torch, torch's distributed checkpoints."""


def full(error: BaseException) -> bool:
    return cause(error) is not None


def cause(error: BaseException) -> int | None:
    """The system's number for it."""
    text = "".join(traceback.format_exception(error))
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in FULL:
            return found.errno
        found = found.__cause__ or found.__context__
    return next((number for sign, number in TOLD.items() if sign in text), None)


def explain(job: Job, error: BaseException) -> RuntimeFailure:
    number = cause(error) or errno.ENOSPC
    free = shutil.disk_usage(next(p for p in (job.output, *job.output.parents) if p.is_dir())).free
    needed, how = checkpoint_bytes(job)
    size = f"; a checkpoint takes {needed / GIB:.2f} GiB, {how}" if needed else ""
    message = f"{FULL[number]} {NOW}: {path_of(error) or job.output}, with {free / GIB:.2f} GiB free{size}"
    return RuntimeFailure(message, EXIT_TRAINING, f"free some, or set another output_dir and plan again; {left(job)}")


def left(job: Job) -> str:
    """What can be gone on from."""
    kept = complete(job.output)
    return f"--resume then goes on from {kept[-1].name}" if kept else "no complete checkpoint is there yet"


def path_of(error: BaseException) -> str | None:
    """Where an error names its file."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.filename:
            return str(found.filename)
        found = found.__cause__ or found.__context__
    named = re.search(r"(/[^\s'\"]*checkpoint-\d+[^\s'\":]*)", str(error))
    return named[1] if named else None


def checkpoint_bytes(job: Job) -> tuple[int, str]:
    """Of one checkpoint, and how that is known: as one that is there, else as planned."""
    kept = complete(job.output)
    if kept:
        return sum(f.stat().st_size for f in kept[-1].rglob("*") if f.is_file()), f"as {kept[-1].name} does"
    planned = next((i["bytes"] for i in ledger(job, "disk_ledger") if i["item"] == "checkpoints"), 0)
    return int(planned), "as planned for those that are kept"
