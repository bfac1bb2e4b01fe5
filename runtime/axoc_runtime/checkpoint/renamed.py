"""Checkpoints whose weights have other names than the model's own.

transformers saves weights under the names that they are published by, and its Trainer loads them by the names that the
model has, without a word of those that it does not find (trainer.py, _load_from_checkpoint: strict is False). Of models that
see, and of experts that are kept as one parameter, all differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from axoc_runtime.job import Job

WHOLE: Final = ("single", "ddp")
"""Strategies under which the Trainer itself loads weights: the others bring them back by their own means."""


def load_renamed(job: Job, model: Any, folder: str | Path | None) -> None:
    """All weights of a checkpoint, where the Trainer has left some as they were."""
    if folder is None or job.adapter is not None or job.distributed.strategy not in WHOLE:
        return
    if set(_names(Path(folder))) <= set(model.state_dict()):
        return
    fresh = type(model).from_pretrained(folder, config=model.config, dtype=model.dtype)
    model.load_state_dict(fresh.state_dict())


def _names(folder: Path) -> Iterator[str]:
    from safetensors import safe_open

    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            yield from weights.keys()
