"""Bundle: files in memory, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BundleFile:
    path: str
    """POSIX path inside the bundle."""
    content: bytes
    executable: bool = False


@dataclass(frozen=True, kw_only=True)
class Bundle:
    files: tuple[BundleFile, ...]
    """Sorted by path."""

    def text(self, path: str) -> str:
        """The text of one file. Raises KeyError where the bundle has no such file."""
        for file in self.files:
            if file.path == path:
                return file.content.decode()
        raise KeyError(path)
