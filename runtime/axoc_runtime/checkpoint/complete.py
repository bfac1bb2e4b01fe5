"""A checkpoint counts once all ranks have written their part: a marker is written last."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import TrainerCallback

from axoc_runtime.strategies import rank

MARKER = ".axoc-complete"
FOLDER = re.compile(r"checkpoint-(\d+)")


class MarkComplete(TrainerCallback):
    """After each save, when every rank is done, rank 0 marks the folder."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if dist.is_initialized():
            dist.barrier()
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if rank() == 0 and folder.is_dir():
            (folder / MARKER).write_text(f"{state.global_step}\n", encoding="utf-8")


def newest_complete(output: Path) -> Path | None:
    """The complete checkpoint with the most steps; half-written ones are passed over."""
    if not output.is_dir():
        return None
    found = [(int(m[1]), p) for p in output.iterdir() if (m := FOLDER.fullmatch(p.name)) and (p / MARKER).is_file()]
    return max(found)[1] if found else None
