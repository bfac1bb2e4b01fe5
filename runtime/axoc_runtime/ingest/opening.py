"""Bytes of a file, wherever it lies and however it is compressed. Nothing is held whole in memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, BinaryIO, Final, cast

from axoc_runtime.ingest.base import Source

SCHEMES: Final = ("s3", "gs", "gcs", "az", "abfs", "abfss", "http", "https")
"""Stores that a dataset may lie on. fsspec knows more, and some of them run commands or read this machine's files."""
PACKAGES: Final = {"gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
"""What fsspec needs for a store, where no lock pins it."""
DAMAGED: Final = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile)
"""What reading a damaged or unfinished archive raises, beside OSError."""


class NotReadHere(OSError):
    """What fsspec needs for a store is not installed, or its options are not the store's."""


def _zstd(stream: BinaryIO) -> BinaryIO:
    import pyarrow as pa

    return cast(BinaryIO, io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(stream), "zstd")))


COMPRESSIONS: Final[dict[str, Callable[[BinaryIO], Any]]] = {
    ".gz": lambda stream: gzip.GzipFile(fileobj=stream),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _zstd,
}
ARCHIVE: Final = ".zip"


def endings(name: str) -> tuple[str, str]:
    """(ending that says the format, ending that says the compression), lower case: ``(".jsonl", ".gz")``."""
    stem, dot, last = name.lower().rpartition("/")[2].rpartition(".")
    ending = f".{last}" if dot else ""
    if ending not in COMPRESSIONS:
        return ending, ""
    inner = stem.rpartition(".")
    return (f".{inner[2]}" if inner[1] else ""), ending


def is_remote(written: str) -> bool:
    return written.partition("://")[0].lower() in SCHEMES and "://" in written


def store(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """(fsspec's file system, the path in it). ``options.storage`` is handed on. Raises OSError with what is missing."""
    import fsspec

    scheme = url.partition("://")[0].lower()
    try:
        system, path = fsspec.core.url_to_fs(url, **dict(options.get("storage") or {}))
    except (ImportError, TypeError, ValueError) as error:
        needed = f": pip install {PACKAGES[scheme]}" if scheme in PACKAGES else f": {error}"
        raise NotReadHere(f"{scheme}:// cannot be read here{needed}") from None
    return system, str(path)


def remote_files(url: str, options: Mapping[str, Any]) -> list[str]:
    """The URL itself, or what it holds as a folder or matches as a glob, sorted. Raises OSError."""
    system, path = store(url, options)
    scheme = url.partition("://")[0]
    if scheme.startswith("http"):
        return [url]
    found = system.glob(path) if set("*?[") & set(path) else system.find(path)
    return [f"{scheme}://{name}" for name in sorted(found)]


def remote_fingerprint(url: str, options: Mapping[str, Any]) -> str:
    """What the store says of the object: it changes with the object, and costs no download."""
    system, path = store(url, options)
    info = system.info(path)
    told = {k: str(info[k]) for k in ("ETag", "etag", "size", "LastModified", "mtime", "generation") if info.get(k)}
    return f"{url} {sorted(told.items())}"


def members(source: Source) -> list[str]:
    """Names of the files in a zip archive. Raises OSError or BadZipFile."""
    with _jumping(source) as stream, zipfile.ZipFile(stream) as archive:
        return sorted(i.filename for i in archive.infolist() if not i.is_dir())


def opened(source: Source) -> BinaryIO:
    if source.member is not None:
        archive = zipfile.ZipFile(_jumping(source))
        return _decompressed(cast(BinaryIO, archive.open(source.member)), source.member)
    return _decompressed(_raw(source), source.name)


@contextmanager
def seekable(source: Source) -> Iterator[BinaryIO]:
    plain = source.member is None and not endings(source.name)[1]
    with _jumping(source) if plain else _copied(opened(source)) as stream:
        yield stream


def _jumping(source: Source) -> BinaryIO:
    """Web servers need not send parts of a file: what they send is kept on the disk."""
    return _copied(_raw(source)) if source.url is not None and source.url.startswith("http") else _raw(source)


def _copied(stream: BinaryIO) -> BinaryIO:
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it, and with that it is gone
    with stream:
        shutil.copyfileobj(stream, copy, 1 << 20)
    copy.seek(0)
    return cast(BinaryIO, copy)


def _raw(source: Source) -> BinaryIO:
    if source.url is None:
        return source.path.open("rb")
    system, path = store(source.url, source.options)
    more = {"block_size": 0} if source.url.startswith("http") else {}  # as one stream, whatever the server can do
    return cast(BinaryIO, system.open(path, "rb", **more))


def _decompressed(stream: IO[bytes], name: str) -> BinaryIO:
    compression = endings(name)[1]
    return cast(BinaryIO, COMPRESSIONS[compression](cast(BinaryIO, stream)) if compression else stream)
