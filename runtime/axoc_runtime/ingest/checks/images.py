"""Whether the images of a row are there and are images. Nothing is fetched from the network."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from axoc_runtime.ingest.base import Example, Pictured, Record
from axoc_runtime.ingest.checks.finding import ERROR, WARNING, Finding, of_row

DATA_URL: Final = "data:image/"


class NoImage(ValueError):
    pass


def image_findings(record: Record, example: Example, folder: Path) -> Iterator[Finding]:
    """``folder``: where the rows' paths count from."""
    if not isinstance(example, Pictured):
        return
    if not example.images:
        yield of_row(ERROR, "image", record, "has no image", fix="add one, or use a format of text")
    for index, image in enumerate(example.images):
        name = f"images[{index}]"
        if isinstance(image, str) and image.startswith(("http://", "https://")):
            message = "is an address: whether an image is there was not looked at"
            yield of_row(WARNING, "image", record, message, column=name, sample=image, fix="keep it beside the data")
            continue
        try:
            _looked_at(image, folder)
        except NoImage as error:
            sample = image if isinstance(image, str) else type(image).__name__
            yield of_row(ERROR, "image", record, str(error), column=name, sample=sample, fix="repair or remove the row")


def _looked_at(image: Any, folder: Path) -> None:
    """Raises NoImage. The pixels are not unpacked: a header tells what it is."""
    from PIL import Image

    try:
        with Image.open(_stream(image, folder)) as found:
            found.verify()
    except NoImage:
        raise
    except OSError as error:
        reason = "is not there" if isinstance(error, FileNotFoundError) else "is no image that can be read"
        raise NoImage(reason) from None
    except Exception as error:  # decoders of many formats, on bytes that may be anything
        raise NoImage(f"is no image that can be read: {type(error).__name__}") from None


def _stream(image: Any, folder: Path) -> Any:
    if isinstance(image, Mapping):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes | bytearray):
        return io.BytesIO(bytes(image))
    if not isinstance(image, str) or not image:
        raise NoImage(f"is {type(image).__name__}, expected bytes, a path or a data: URL")
    if not image.startswith(DATA_URL):
        return folder / image
    try:
        return io.BytesIO(base64.b64decode(image.partition(",")[2], validate=True))
    except (binascii.Error, ValueError):
        raise NoImage("is a data: URL whose base64 is broken") from None
