"""Images of a row: where they are, and their pixels. Nothing is fetched from the network."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

DATA_URL: Final = "data:image/"
ADDRESSES: Final = ("http://", "https://")


MOST_PIXELS: Final = 1024**3 // 4 // 3
"""Of Pillow (Image.MAX_IMAGE_PIXELS), which warns above it and refuses above twice as many."""
warnings.filterwarnings("ignore", message=r"Image size \(\d+ pixels\) exceeds limit")  # of photographs that are used


class NoImage(ValueError):
    pass


def stream(image: Any, folder: Path) -> Any:
    """Of a row's image: a path, or a stream of its bytes. ``folder``: where paths count from. Raises NoImage."""
    if isinstance(image, Mapping):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes | bytearray):
        return io.BytesIO(bytes(image))
    if not isinstance(image, str) or not image:
        raise NoImage(f"is {type(image).__name__}, expected bytes, a path or a data: URL")
    if image.startswith(ADDRESSES):
        raise NoImage("is an address, and nothing is fetched")
    if not image.startswith(DATA_URL):
        return folder / image
    try:
        return io.BytesIO(base64.b64decode(image.partition(",")[2], validate=True))
    except (binascii.Error, ValueError):
        raise NoImage("is a data: URL whose base64 is broken") from None


def verify(image: Any, folder: Path) -> None:
    """Raises NoImage. The pixels are not unpacked: a header tells what it is."""
    from PIL import Image

    with _Reading(), Image.open(stream(image, folder)) as found:
        found.verify()


def pixels(image: Any, folder: Path) -> Any:
    """The whole image in RGB, turned as its camera says. Raises NoImage."""
    from PIL import Image, ImageOps

    with _Reading(), Image.open(stream(image, folder)) as found:
        return ImageOps.exif_transpose(found).convert("RGB")


class _Reading:
    """What decoders of many formats raise, on bytes that may be anything, as NoImage."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, NoImage) or not isinstance(error, Exception):
            return
        if isinstance(error, OSError):
            reason = "is not there" if isinstance(error, FileNotFoundError) else "is no image that can be read"
            raise NoImage(reason) from None
        if type(error).__name__ == "DecompressionBombError":  # Pillow's: a file of some bytes may unpack to gigabytes
            raise NoImage(f"has more pixels than are unpacked: {2 * MOST_PIXELS:,} at most") from None
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NoImage(f"is no image that can be read: {first[:80]}") from None


def kept(image: Any, folder: Path, base: Path) -> dict[str, Any]:
    """As it is kept beside the row's tokens: bytes where the row brings them, else the path from ``base``."""
    import os

    found = stream(image, folder)
    if isinstance(found, io.BytesIO):
        return {"path": None, "bytes": found.getvalue()}
    return {"path": os.path.relpath(found, base), "bytes": None}
