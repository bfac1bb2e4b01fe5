"""Draws docs/plan.svg, the README's picture of a plan, from a golden's terminal output. Run by `make golden`."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCE: Final = ROOT / "golden/llama3-8b-lora__h100-sxm-80gb/terminal.txt"
TARGET: Final = ROOT / "docs/plan.svg"
COMMAND: Final = "axoc plan specs/llama3-8b-lora.yaml --inventory h100-sxm-80gb --dry-run"


def draw(text: str) -> str:
    """A terminal as SVG, with no font or anything else loaded from outside."""
    console = Console(record=True, width=98, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {COMMAND}\n", style="bold green"))
    for line in text.splitlines():
        title = bool(line) and not line.startswith(" ") and len(line) < 60 and not line.endswith(".")
        console.print(Text(line, style="bold" if title else ""), no_wrap=True)
    svg = console.export_svg(title="axoc plan", unique_id="axoc")
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def main() -> int:
    TARGET.write_text(draw(SOURCE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
