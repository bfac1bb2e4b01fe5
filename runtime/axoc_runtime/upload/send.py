"""Sends folders: what the store has already is not sent again, and what makes a folder count goes last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from axoc_runtime.checkpoint.complete import complete
from axoc_runtime.checkpoint.manifest import MARKER, FileDigest, digests, read_manifest
from axoc_runtime.job import Job
from axoc_runtime.upload.journal import Journal, read_journal
from axoc_runtime.upload.store import LocalFileGone, Store, open_store, patiently

SNAPSHOTS: Final = ".uploading"
"""Hard links to a checkpoint's files: rotation may delete the checkpoint, its bytes stay until they are sent."""
RUN_FILES: Final = ("before.json", "metrics.jsonl")
"""What a resumed run goes on from, besides a checkpoint."""
RESULTS: Final = ("final", "adapter", "tensorboard", "samples.json", "metrics.md", "metrics.jsonl")
LAST_RESULT: Final = "metrics.json"
"""It says that the run is finished."""


class Sender:
    """Of one job to its store. Every method raises StoreLost once the store has failed for ``patience_seconds``."""

    def __init__(self, job: Job, patience_seconds: float, waiting: Any = lambda _: None) -> None:
        assert job.upload_to is not None
        self.job, self.patience_seconds, self.waiting = job, patience_seconds, waiting
        self.store: Store = open_store(job.upload_to)
        self.journal: Journal = read_journal(job.output, self.store.url)
        self.sent_bytes = 0

    def unsent(self) -> list[Path]:
        """Complete checkpoints whose marker is not there, by the journal; the newest first."""
        return [p for p in reversed(complete(self.job.output)) if not self._sent(p)]

    def _sent(self, folder: Path) -> bool:
        entry = self.journal.files.get(f"{folder.name}/{MARKER}")
        try:
            return entry is not None and entry["sha256"] == digests(folder, [MARKER])[MARKER].sha256
        except FileNotFoundError:  # rotated away: there is nothing to send
            return True

    def send_checkpoint(self, folder: Path) -> bool:
        """False: it was rotated away before its files could be held."""
        try:
            with snapshot(folder, self.job.output / SNAPSHOTS) as held:
                manifest = read_manifest(held)
                if manifest is None:
                    return False
                self._send(held, folder.name, manifest.files, digests(held, [MARKER]))
        except (LocalFileGone, FileNotFoundError):
            return False
        self.send_files(*RUN_FILES)
        return True

    def send_files(self, *names: str) -> None:
        """Those of the output folder that are there, folders with all that is in them."""
        for name in names:
            path = self.job.output / name
            inside = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
            if path.is_dir():
                self._send(path, name, digests(path, inside), {})
            elif path.is_file():
                self._send(self.job.output, "", digests(self.job.output, [name]), {})

    def send_results(self) -> None:
        self.send_files(*RESULTS)
        self.send_files(LAST_RESULT)

    def _send(self, folder: Path, name: str, files: dict[str, FileDigest], last: dict[str, FileDigest]) -> None:
        """A marker of other content that stands there goes first: nobody may take the mixture for whole."""
        prefix = f"{name}/" if name else ""
        stamps = self._try(lambda: self.store.stamps(name))
        for path, digest in last.items():
            if prefix + path in stamps and not self.journal.has(prefix + path, digest, stamps):
                self._try(lambda path=path: self.store.remove(prefix + path))
        for path, digest in sorted(files.items()) + sorted(last.items()):
            if not self.journal.has(prefix + path, digest, stamps):
                self._send_file(folder / path, prefix + path, digest)

    def _send_file(self, local: Path, relative: str, digest: FileDigest) -> None:
        def put() -> list[Any]:
            if not local.is_file():
                raise LocalFileGone(str(local))
            return self.store.put(local, relative)

        stamp = self._try(put)
        self.journal.add(relative, digest, stamp)
        self.journal.save()
        self.sent_bytes += digest.bytes

    def prune(self) -> None:
        """Checkpoints that rotation has deleted here go there too, once the newest one here is there whole."""
        here = complete(self.job.output)
        if not here or not self._sent(here[-1]):
            return
        kept = {path.name for path in here}
        for name in remote_checkpoints(self.store, self._try(self.store.stamps)):
            if name not in kept:
                self.forget(name)

    def forget(self, name: str) -> None:
        """Its marker first."""
        self._try(lambda: self.store.remove(f"{name}/{MARKER}"))
        self._try(lambda: self.store.remove_folder(name))
        self.journal.drop(f"{name}/")
        self.journal.save()

    def _try(self, action: Any) -> Any:
        return patiently(action, self.patience_seconds, self.waiting)


def remote_checkpoints(store: Store, stamps: dict[str, list[Any]]) -> list[str]:
    """Complete or not, by their steps."""
    names = {path.partition("/")[0] for path in stamps}
    found = [n for n in names if n.startswith("checkpoint-") and n.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=lambda n: int(n.removeprefix("checkpoint-")))


@contextmanager
def snapshot(folder: Path, where: Path) -> Iterator[Path]:
    """Its files by hard links, which cost nothing; the folder itself where the file system has none.

    Raises FileNotFoundError where it is deleted meanwhile.
    """
    held = where / folder.name
    shutil.rmtree(held, ignore_errors=True)
    held.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            shutil.copytree(folder, held, copy_function=os.link)
        except shutil.Error as error:
            if not folder.is_dir():
                raise FileNotFoundError(folder) from error
            shutil.rmtree(held, ignore_errors=True)
        yield held if held.is_dir() else folder
    finally:
        shutil.rmtree(where, ignore_errors=True)
