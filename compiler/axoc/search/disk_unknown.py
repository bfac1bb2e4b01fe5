"""What a run keeps on disk that no plan can count: said, with its rule, where the ledger would have had a silent zero."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from axoc.cost.disk import PREPARED_ROW_BYTES, TOKEN_BYTES
from axoc.facts.lock import DATA_SUFFIXES
from axoc.ir.facts import DataFacts
from axoc.ir.plan import DISK_BEGINS, UNCOUNTED
from axoc.ir.request import DatasetRequest, PlanRequest

WEB: Final = ("http://", "https://")
JUMPED_IN: Final = (".parquet", ".arrow", ".feather", ".ipc", ".db", ".sqlite", ".sqlite3", ".zip")
"""Files that are not read from front to end (the runtime's readers/arrow_files.py and databases.py, ingest/opening.py)."""
READ_THROUGH: Final = (*DATA_SUFFIXES, ".htm", ".html", ".xhtml", ".markdown", ".warc", ".wet")
COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst")
SERVERS: Final = ("postgres://", "postgresql://")
"""A query's rows come over the network and stay nowhere."""
HUB_NAME: Final = re.compile(r"\w[\w.-]*(/[\w.-]+)?", re.ASCII)
"""With a colon it is a plugin's."""


def disk_warnings(request: PlanRequest, data: Sequence[DataFacts]) -> tuple[str, ...]:
    """Of every dataset what is not in the ledger, and what it comes to."""
    known = [*data, *([DataFacts(path=None)] * (len(request.datasets) - len(data)))]
    pairs = list(zip(request.datasets, known, strict=True))
    found = [DISK_BEGINS + told for wanted, facts in pairs if (told := fetched(wanted, facts)) is not None]
    uncounted = [d.path for d, facts in pairs if d.path is not None and facts.rows is None and not d.streaming]
    if uncounted:
        found.append(
            f"{UNCOUNTED} are not counted, as the number of rows of {', '.join(uncounted)} is not known: "
            f"{TOKEN_BYTES:.0f} bytes a token and {PREPARED_ROW_BYTES} a row are kept; axoc lock counts local files"
        )
    return tuple(found)


def fetched(dataset: DatasetRequest, facts: DataFacts) -> str | None:
    """What stays of a source that is not on this machine; None where nothing does."""
    path = dataset.path
    if path is None or facts.bytes is not None or path.startswith(SERVERS):
        return None
    if "://" in path:
        return _of_a_store(path)
    if dataset.streaming or not _may_be_of_the_hub(path):
        return None
    return (
        f"where {path} is fetched from the hub, how large it is is not known before: the hub's cache keeps its files and beside "
        "them all its rows once more, uncompressed, as Arrow (HF_HOME); dataset.streaming keeps neither"
    )


def _of_a_store(path: str) -> str | None:
    """The runtime's ingest/opening.py: what is read from front to end is read in place, and what is jumped in is copied first
    where the store cannot jump (web servers), or the file is compressed. A folder or a glob may hold either."""
    name, packed = _without_compression(path)
    ending = _ending(name)
    in_place = ending in READ_THROUGH and ending not in JUMPED_IN
    can_jump = ending in JUMPED_IN and not packed and not path.lower().startswith(WEB)
    if in_place or can_jump:
        return None
    return (
        f"how large the files of {path} are is not known before: while one is read that is Parquet, Arrow, a database or a zip "
        "archive, and is compressed or on a web server, a copy of it lies in TMPDIR; nothing of it stays"
    )


def _may_be_of_the_hub(path: str) -> bool:
    """As the runtime tells it (ingest/sources.py), but for looking at the disk."""
    name, _ = _without_compression(path)
    is_file = _ending(name) in (*READ_THROUGH, *JUMPED_IN)
    return HUB_NAME.fullmatch(path) is not None and not is_file


def _without_compression(path: str) -> tuple[str, bool]:
    name = path.lower()
    packed = name.endswith(COMPRESSED)
    return (name.rpartition(".")[0] if packed else name), packed


def _ending(name: str) -> str:
    stem, dot, last = name.rpartition("/")[2].rpartition(".")
    return f".{last}" if dot and stem else ""
