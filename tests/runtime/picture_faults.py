"""Rows about images damaged in fourteen ways: files that are not there or are no images, bytes that are broken, too many pixels,
marks that do not fit, and what happens to any row."""

from __future__ import annotations

import base64
import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

from seeing import COLORS, damaged, png

from runtime.faults import Damage, Kind, as_line

ENORMOUS = 30_000
"""Pixels a side: 2.5 GiB once it is unpacked, of a file of a hundred bytes."""


def pictures(folder: Path) -> None:
    """What rows name, beside the data."""
    found = folder / "images"
    found.mkdir(exist_ok=True)
    for color in COLORS:
        (found / f"{color}.png").write_bytes(png(color))
    (found / "damaged.png").write_bytes(damaged(png("red")))
    (found / "cut.jpg").write_bytes(_jpeg()[:-200])
    (found / "enormous.png").write_bytes(enormous(ENORMOUS))
    (found / "text.png").write_text("no image")


def _jpeg() -> bytes:
    """Noise: its header is the smallest part of it."""
    from PIL import Image

    stream = io.BytesIO()
    Image.frombytes("RGB", (32, 32), random.Random(1).randbytes(3 * 32 * 32)).save(stream, "JPEG")
    return stream.getvalue()


def enormous(side: int) -> bytes:
    """A PNG whose header tells of ``side`` x ``side`` pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def sound_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """A question about one image or two, beside the data or in the row; no two alike."""
    draw = random.Random(seed)
    inside = {color: url(png(color)) for color in COLORS}
    return [_sound(number, draw, inside) for number in range(count)]


def _sound(number: int, draw: random.Random, inside: dict[str, str]) -> dict[str, Any]:
    colors = draw.choices(list(COLORS), k=draw.randint(1, 2))
    images = [inside[c] if draw.random() < 0.5 else f"images/{c}.png" for c in colors]
    asked = {"role": "user", "content": f"{'<image>' * len(images)}Which color is number {number}?"}
    return {"messages": [asked, {"role": "assistant", "content": f"{' and '.join(colors)}."}], "images": images}


def _seen(*images: Any) -> Damage:
    """The first image is another thing."""
    return lambda row, line, draw: as_line(row | {"images": [*images, *row["images"][1:]]})


def _turn(which: int, **changes: str) -> Damage:
    def change(row: dict[str, Any], line: bytes, draw: random.Random) -> bytes:
        said = [dict(t) for t in row["messages"]]
        said[which] |= {name: text.format(said[which]["content"]) for name, text in changes.items()}
        return as_line(row | {"messages": said})

    return change


DAMAGES: dict[str, tuple[str, Damage]] = {
    "file not there": ("image", _seen("images/gone.png")),
    "file damaged": ("image", _seen("images/damaged.png")),
    "file cut off": ("image", _seen("images/cut.jpg")),
    "file of text": ("image", _seen("images/text.png")),
    "bytes that are no base64": ("image", _seen("data:image/png;base64,%%%")),
    "bytes that are no image": ("image", _seen(url(b"no image"))),
    "too large": ("image", _seen("images/enormous.png")),
    "wrong type": ("image", _seen(12)),
    "an address": ("image", _seen("https://example.org/cat.png")),
    "a mark too many": ("image", _turn(0, content="<image>{}")),
    "image in an answer": ("image", _turn(1, content="<image>{}")),
    "no answer": ("empty", _turn(1, content=" ")),
    "cut off": ("malformed", lambda row, line, draw: line[: draw.randint(2, len(line) - 3)] + b"\n"),
    "copy": ("duplicate", lambda row, line, draw: b""),
}
PICTURES = Kind(sound_rows, DAMAGES)
