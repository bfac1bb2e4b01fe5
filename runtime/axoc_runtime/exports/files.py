"""Moving what several formats share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def move_contents(source: Path, target: Path, *, keep: bool) -> None:
    """Files of a scratch folder; ``keep``: another format needs them too, so they are linked, or copied where that fails."""
    for file in sorted(source.iterdir()):
        if keep:
            _link(file, target / file.name)
        else:
            shutil.move(file, target / file.name)


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)
