"""Samples for what only all rows together show: rows are not remembered, so each is looked up where it stands."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Final

from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.ingest.base import Source
from axoc_runtime.ingest.checks.finding import SAMPLE_CHARACTERS, Finding, shortened
from axoc_runtime.ingest.opening import endings, is_remote
from axoc_runtime.ingest.sources import parts
from axoc_runtime.job import DatasetJob, Located

SAMPLE_BYTES: Final = 4 * SAMPLE_CHARACTERS


def looked_up(job: Located, datasets: Sequence[DatasetJob], findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings, each of a row of a plain local file with how the row begins. Others stay as they are."""
    opened: dict[str, int] | None = None
    with ExitStack() as files:
        for finding in findings:
            if finding.offset is None or finding.sample:
                yield finding
                continue
            opened = _open(job, datasets, files) if opened is None else opened
            file = opened.get(finding.file)
            yield finding if file is None else replace(finding, sample=_beginning(file, finding.offset))


def _open(job: Located, datasets: Sequence[DatasetJob], files: ExitStack) -> dict[str, int]:
    """Name, as findings have it -> the open file."""
    found: dict[str, int] = {}
    for dataset in datasets:
        if dataset.path is None or is_remote(dataset.path):
            continue
        with suppress(RuntimeFailure, OSError):  # what cannot be read is told of elsewhere
            for source in (source for _, source in parts(job, dataset) if _is_plain(source)):
                if source.written not in found:
                    found[source.written] = os.open(source.path, os.O_RDONLY)
                    files.callback(os.close, found[source.written])
    return found


def _is_plain(source: Source) -> bool:
    return source.url is None and source.member is None and not endings(source.name)[1] and source.path.is_file()


def _beginning(file: int, offset: int) -> str:
    """The row's line, or several where it is spread over them."""
    text = os.pread(file, SAMPLE_BYTES, offset).decode("utf-8", "replace")
    line = text.partition("\n")[0].strip()
    return shortened(line if len(line) > 1 else " ".join(text.split()))
