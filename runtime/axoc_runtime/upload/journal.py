"""What was sent: ``<output_dir>/.uploaded.json``. By it a later upload knows what the store has, without reading it back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from axoc_runtime.checkpoint.manifest import FileDigest
from axoc_runtime.files import write_json

NAME: Final = ".uploaded.json"


@dataclass
class Journal:
    """Of one URL. An entry holds the file's size and SHA-256 when it was sent, and its stamp on the store since then."""

    path: Path
    url: str
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def has(self, relative: str, digest: FileDigest, stamps: dict[str, list[Any]]) -> bool:
        """Whether this content was sent, and nobody has changed it there."""
        entry = self.files.get(relative)
        known = entry is not None and (entry["bytes"], entry["sha256"]) == (digest.bytes, digest.sha256)
        return known and entry is not None and stamps.get(relative) == entry["stamp"]

    def add(self, relative: str, digest: FileDigest, stamp: list[Any]) -> None:
        self.files[relative] = {"bytes": digest.bytes, "sha256": digest.sha256, "stamp": stamp}

    def drop(self, prefix: str) -> None:
        """All entries below it."""
        self.files = {k: v for k, v in self.files.items() if not k.startswith(prefix)}

    def save(self) -> None:
        """Where a kill comes before it, what was sent since the last time is sent again: no harm."""
        write_json(self.path, {"url": self.url, "files": self.files})


def read_journal(output: Path, url: str) -> Journal:
    """An empty one where there is none, or where it is of another store."""
    path = output / NAME
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["url"] == url:
            return Journal(path, url, dict(value["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return Journal(path, url)
