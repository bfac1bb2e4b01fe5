"""Draws docs/report-1440.png and docs/report-390.png: a report as a screen and as a phone show it. Needs Chromium.

python tools/report_pictures.py [PAGE FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from browser import FRAME, evaluated, run_chromium  # noqa: E402

SPEC: Final = """\
name: support-assistant
model: meta-llama/Llama-3.1-8B
dataset: {path: data/train.jsonl, max_seq_length: 4096}
training: {max_steps: 1000}
"""
KINDS: Final = "h100-sxm-80gb:8,a100-sxm-80gb:8"
WIDTHS: Final = (1440, 390)


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        page = work / "page.html"
        target = Path(arguments[1]) if arguments else ROOT / "docs"
        page.write_text(Path(arguments[0]).read_text() if arguments else _report(work))
        for width in WIDTHS:
            _draw(page, width, target / f"report-{width}.png")
    return 0


def _report(work: Path) -> str:
    from axoc.review.report import page

    spec = work / "spec.yaml"
    spec.write_text(SPEC)
    return page(spec, KINDS, None)


def _draw(page: Path, width: int, target: Path) -> None:
    """In a frame, since a window of Chromium is never as narrow as a phone; what is beside it is cut off."""
    from PIL import Image

    height = evaluated(page, width, "return document.documentElement.scrollHeight")
    frame = page.with_name("picture.html")
    frame.write_text(FRAME.replace("PAGE", page.name).replace("WIDTH", str(width)).replace("4000", str(height)))
    run_chromium(frame, f"--screenshot={target}", width=max(width, 500), height=height)
    picture = Image.open(target).crop((0, 0, width, height))
    picture.convert("RGB").quantize(200).save(target, optimize=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
