"""axoc.bundle.json: the digest of every other file, by which launch.sh and --check know an altered bundle."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from axoc import __version__
from axoc.ir.bundle import BundleFile
from axoc.ir.canonical import digest, dumps

MANIFEST: Final = "axoc.bundle.json"
SCHEMA_VERSION: Final = 1
OWNED_FOLDERS: Final = ("config", "launch", "plugins", "runtime")
"""Folders in which every file is axoc's: one that is not listed is an alteration."""


def manifest_file(files: Iterable[BundleFile], inventory: str | None = None) -> BundleFile:
    """The manifest of ``files``. ``inventory`` is what the plan was made for, as it was named.

    ``bundle_digest`` is that of the sorted path-to-digest mapping."""
    digests = {f.path: digest(f.content) for f in sorted(files, key=lambda f: f.path)}
    content = {
        "schema_version": SCHEMA_VERSION,
        "axoc_version": __version__,
        "inventory": inventory,
        "owned_folders": list(OWNED_FOLDERS),
        "files": digests,
        "bundle_digest": digest(dumps(digests).encode()),
    }
    return BundleFile(path=MANIFEST, content=dumps(content).encode())
