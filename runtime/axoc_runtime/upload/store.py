"""A place on a store, by its URL. Credentials come from the environment, as each store's own client reads them."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from axoc_runtime.errors import EXIT_ENVIRONMENT, RuntimeFailure

T = TypeVar("T")
FIRST_WAIT_SECONDS: Final = 1.0
LONGEST_WAIT_SECONDS: Final = 60.0
BOTO: Final = {"connect_timeout": 10, "read_timeout": 30, "retries": {"max_attempts": 0}}
"""botocore would try each request five times and wait a minute for each, and s3fs tries five times what botocore gives up:
a server that takes connections and says nothing would hold one file for half an hour."""
CLIENTS: Final = {"s3": {"config_kwargs": BOTO}, "s3a": {"config_kwargs": BOTO}}
STAMPS: Final = ("ETag", "etag", "md5Hash", "generation", "LastModified", "mtime")
"""By which stores tell one content of a name from the next; the first that a store has is taken."""
SECRET: Final = re.compile(r"(?i)(://)[^/@\s]*@|((?:signature|sig|token|secret|password|key)[\w-]*=)[^&\s]+")


class StoreLost(Exception):
    """It did not answer, or refused, for as long as was to be waited; the message is one line without secrets."""


@dataclass(frozen=True)
class Store:
    url: str
    fs: Any
    root: str

    def at(self, relative: str) -> str:
        return f"{self.root}/{relative}"

    def put(self, local: Path, relative: str) -> list[Any]:
        """Sends a file, in parts where it is large and the store takes parts, and gives its stamp there."""
        self.fs.makedirs(self.at(relative).rpartition("/")[0], exist_ok=True)
        self.fs.put_file(str(local), self.at(relative))
        self.fs.invalidate_cache()
        return stamp(self.fs.info(self.at(relative)))

    def get(self, relative: str, local: Path) -> None:
        """Beside first, then renamed."""
        local.parent.mkdir(parents=True, exist_ok=True)
        beside = local.with_name(f".{local.name}.part")
        self.fs.get_file(self.at(relative), str(beside))
        beside.replace(local)

    def stamps(self, relative: str = "") -> dict[str, list[Any]]:
        """Of all files below it, by their path from the root: one listing."""
        self.fs.invalidate_cache()
        base = self.at(relative).rstrip("/")
        try:
            found = self.fs.find(base, detail=True)
        except FileNotFoundError:
            return {}
        start = len(self.root) + 1
        return {path[start:]: stamp(info) for path, info in found.items() if path.startswith(f"{self.root}/")}

    def remove(self, relative: str) -> None:
        """One file, if it is there."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(self.at(relative))

    def remove_folder(self, relative: str) -> None:
        """All of it, if it is there."""
        with suppress(FileNotFoundError):
            self.fs.rm(self.at(relative), recursive=True)


def stamp(info: dict[str, Any]) -> list[Any]:
    """Size and what changes with the content."""
    return [info.get("size"), next((str(info[k]) for k in STAMPS if info.get(k) is not None), None)]


def open_store(url: str) -> Store:
    """Raises RuntimeFailure (11) naming the package where fsspec has no implementation installed for the URL."""
    from fsspec.core import url_to_fs
    from fsspec.registry import known_implementations

    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # what its tasks fail with is raised here too, in one line
    protocol = url.partition("://")[0]
    try:
        fs, root = url_to_fs(url, use_listings_cache=False, **CLIENTS.get(protocol, {}))
    except (ImportError, ValueError) as error:
        package = known_implementations.get(protocol, {}).get("class", "").partition(".")[0]
        fix = f"pip install {package}, and run with --no-install" if package else "use s3://, gs:// or az://"
        message = f"nothing is installed that writes to {protocol}:// (upload_to: {url}): {one_line(error)}"
        raise RuntimeFailure(message, EXIT_ENVIRONMENT, fix) from None
    return Store(url=url.rstrip("/"), fs=fs, root=str(root).rstrip("/"))


def patiently(action: Callable[[], T], patience_seconds: float, waiting: Callable[[str], None] = lambda _: None) -> T:
    """The action's result. One that fails is tried again, after 1, 2, 4, … 60 s, for as long as that; then StoreLost.

    ``waiting`` is told why after each failure. A local file that has gone is no failure of the store, and is raised.
    """
    began, wait = time.monotonic(), FIRST_WAIT_SECONDS
    while True:
        try:
            return action()
        except LocalFileGone:
            raise
        except Exception as error:  # each store's client has errors of its own
            why = one_line(error)
        if time.monotonic() - began + wait > patience_seconds:
            raise StoreLost(why) from None
        waiting(why)
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)


class LocalFileGone(Exception):
    """Rotated away while it was to be sent."""


def one_line(error: BaseException) -> str:
    """What went wrong, without what must not be in a log."""
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {SECRET.sub(_hidden, first)}"


def _hidden(found: re.Match[str]) -> str:
    return f"{found[1] or found[2]}…" + ("@" if found[1] else "")
