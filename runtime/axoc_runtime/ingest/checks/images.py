"""Whether the images of a row are there and are images. Nothing is fetched from the network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from axoc_runtime.ingest.base import Example, Pictured, Record
from axoc_runtime.ingest.checks.finding import ERROR, Finding, of_row
from axoc_runtime.ingest.pixels import ADDRESSES, NoImage, verify


def image_findings(record: Record, example: Example, folder: Path) -> Iterator[Finding]:
    """``folder``: where the rows' paths count from."""
    if not isinstance(example, Pictured):
        return
    if not example.images:
        yield of_row(ERROR, "image", record, "has no image", fix="add one, or use a format of text")
    for index, image in enumerate(example.images):
        name = f"images[{index}]"
        try:
            verify(image, folder)
        except NoImage as error:
            address = isinstance(image, str) and image.startswith(ADDRESSES)
            fix = "keep it beside the data" if address else "repair or remove the row"
            sample = image if isinstance(image, str) else type(image).__name__
            yield of_row(ERROR, "image", record, str(error), column=name, sample=sample, fix=fix)
