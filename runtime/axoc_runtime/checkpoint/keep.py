"""How a checkpoint gets its name, and which older ones go. Rank 0 alone runs this, on a file system that all ranks see."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from axoc_runtime.checkpoint.complete import complete
from axoc_runtime.checkpoint.manifest import sync_folder

SAVING: Final = ".saving"
"""Half-written checkpoints lie in this folder of the output folder."""
DELETING: Final = ".deleting"
"""A checkpoint is renamed into it, then deleted: one that still has its name is whole."""
DAMAGED: Final = "damaged-"
"""Prefix of the name that a checkpoint gets whose files are not as they were written."""
KEPT: Final = 2


def publish(staged: Path, output: Path) -> Path:
    """``staged`` is complete and on disk: gives it its place, where one of the same step gives way first."""
    final = output / staged.name
    if final.exists():
        _delete(final)
    staged.rename(final)
    sync_folder(output)
    return final


def rotate(output: Path, best_step: int | None) -> None:
    """Keeps the newest, the best, and as many of the next newest as make KEPT. Only ever after a newer one is complete."""
    found = complete(output)
    best = output / f"checkpoint-{best_step}"
    kept = {*found[-1:], *(p for p in found if p == best)}
    for path in reversed(found):
        if len(kept) < KEPT:
            kept.add(path)
    for path in found:
        if path not in kept:
            _delete(path)


def set_aside(path: Path) -> Path:
    """Out of the way of resuming and rotation, for whoever wants to look; the last such one of a step stays."""
    aside = path.with_name(DAMAGED + path.name)
    if aside.exists():
        _delete(aside)
    path.rename(aside)
    return aside


def clear_unfinished(output: Path) -> None:
    """What a killed run was writing or deleting."""
    for name in (SAVING, DELETING):
        shutil.rmtree(output / name, ignore_errors=True)


def _delete(path: Path) -> None:
    gone = path.parent / DELETING / path.name
    shutil.rmtree(gone, ignore_errors=True)
    gone.parent.mkdir(exist_ok=True)
    path.rename(gone)
    shutil.rmtree(gone.parent, ignore_errors=True)
