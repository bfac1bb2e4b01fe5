"""`upload`: sends all that is not on the store. `fetch`: before a run, what the store holds of an earlier one."""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from axoc_runtime.checkpoint.complete import complete
from axoc_runtime.checkpoint.manifest import MARKER, damage, digests, read_manifest
from axoc_runtime.errors import EXIT_INPUTS, EXIT_PREFLIGHT, EXIT_UPLOAD, RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.upload.send import LAST_RESULT, RUN_FILES, Sender, remote_checkpoints
from axoc_runtime.upload.store import StoreLost, open_store, patiently

PATIENCE_SECONDS: Final = float(os.environ.get("AXOC_UPLOAD_PATIENCE_SECONDS", "300"))
"""A store that has failed for so long is given up. A transfer that is under way is not a failure, however long it takes."""
PROBE_SECONDS: Final = min(20.0, PATIENCE_SECONDS)
FETCHING: Final = ".fetching"
HOW: Final = "launch.sh --upload sends the rest once the store is back"


def upload(job: Job) -> None:
    """Results first, then checkpoints, the newest first. Raises RuntimeFailure (17) where the store does not take all."""
    if job.upload_to is None:
        return
    sender = Sender(job, PATIENCE_SECONDS)
    try:
        sender.send_results()
        for folder in sender.unsent():
            sender.send_checkpoint(folder)
        sender.prune()
    except StoreLost as lost:
        waiting = ", ".join(p.name for p in sender.unsent()) or "results"
        message = (
            f"{job.upload_to} does not take uploads: {lost}; not there yet: {waiting}. All of it is in {job.output}"
        )
        raise RuntimeFailure(message, EXIT_UPLOAD, HOW) from None
    print(f"axoc: {job.output} is in {job.upload_to} ({sender.sent_bytes / 2**20:,.1f} MiB sent now)", flush=True)


def preflight(job: Job) -> None:
    """Writes and deletes a small file there: raises RuntimeFailure where that cannot be done, before anything is paid for."""
    if job.upload_to is None:
        return
    store = open_store(job.upload_to)
    probe = f".axoc-probe-{uuid.uuid4().hex}"
    try:
        patiently(lambda: store.fs.makedirs(store.root, exist_ok=True), PROBE_SECONDS)
        patiently(lambda: store.fs.pipe_file(store.at(probe), b"axoc"), PROBE_SECONDS)
        patiently(lambda: store.remove(probe), PROBE_SECONDS)
    except StoreLost as lost:
        fix = (
            "check the bucket's name, the credentials in the environment and its rights to write, list and delete there"
        )
        raise RuntimeFailure(f"upload_to: {job.upload_to} cannot be written: {lost}", EXIT_PREFLIGHT, fix) from None


def fetch(job: Job, *, resume: bool, fresh: bool) -> None:
    """With --resume: the newest checkpoint there, where none here is as new. Without: an unfinished run's is not passed over.

    Raises RuntimeFailure (1) where --resume or --fresh must be said.
    """
    if job.upload_to is None:
        return
    sender = Sender(job, PROBE_SECONDS)
    try:
        stamps = sender._try(sender.store.stamps)
        there = [n for n in remote_checkpoints(sender.store, stamps) if f"{n}/{MARKER}" in stamps]
        if resume:
            _take_newest(job, sender, stamps, there)
        elif there and not fresh and LAST_RESULT not in stamps:
            message = f"an unfinished run has left {sender.store.url}/{there[-1]}"
            fix = "--resume goes on from it, --fresh deletes it and starts anew"
            raise RuntimeFailure(message, EXIT_INPUTS, fix)
        else:
            _clear(sender, stamps)
    except StoreLost as lost:
        if not resume or complete(job.output):
            print(f"axoc: {job.upload_to} cannot be read ({lost}): going on without it", flush=True)
            return
        message = f"no checkpoint is in {job.output}, and {job.upload_to} cannot be read: {lost}"
        raise RuntimeFailure(
            message, EXIT_PREFLIGHT, "check the credentials in the environment, then --resume"
        ) from None


def _clear(sender: Sender, stamps: dict[str, list[Any]]) -> None:
    """A run that starts anew must not be resumed from an older one's checkpoints later on."""
    sender._try(lambda: sender.store.remove(LAST_RESULT))
    for name in remote_checkpoints(sender.store, stamps):
        sender.forget(name)


def _take_newest(job: Job, sender: Sender, stamps: dict[str, list[Any]], there: list[str]) -> None:
    """Verified by its manifest; a damaged one is named, and the next older one is taken."""
    here = complete(job.output)
    newest_here = int(here[-1].name.removeprefix("checkpoint-")) if here else -1
    for name in reversed(there):
        if int(name.removeprefix("checkpoint-")) <= newest_here:
            return
        print(f"axoc: fetching {sender.store.url}/{name}", flush=True)
        problems = _download(job, sender, stamps, name)
        if not problems:
            return
        print(f"axoc: {sender.store.url}/{name} is damaged and is passed over: {problems[0]}", flush=True)


def _download(job: Job, sender: Sender, stamps: dict[str, list[Any]], name: str) -> list[str]:
    """What is wrong with it. Files that an interrupted download has left are taken where they are whole."""
    folder = job.output / FETCHING / name
    sender._try(lambda: sender.store.get(f"{name}/{MARKER}", folder / MARKER))
    manifest = read_manifest(folder)
    if manifest is None:
        return ["its manifest is of another version"]
    for path in manifest.files:
        if f"{name}/{path}" not in stamps:
            return [f"{path} is missing"]
        if damage(folder, manifest, [path]):
            sender._try(lambda path=path: sender.store.get(f"{name}/{path}", folder / path))
    problems = damage(folder, manifest, manifest.files)
    if not problems:
        for path, digest in (manifest.files | digests(folder, [MARKER])).items():
            sender.journal.add(f"{name}/{path}", digest, stamps[f"{name}/{path}"])
        sender.journal.save()
        _run_files(job, sender, stamps)
        _place(folder, job.output / name)
    shutil.rmtree(folder.parent, ignore_errors=True)
    return problems


def _run_files(job: Job, sender: Sender, stamps: dict[str, list[Any]]) -> None:
    for name in RUN_FILES:
        if name in stamps and not (job.output / name).is_file():
            sender._try(lambda name=name: sender.store.get(name, job.output / name))


def _place(folder: Path, target: Path) -> None:
    """Where several nodes share the file system, another one may have been first."""
    with suppress(OSError):
        folder.rename(target)
