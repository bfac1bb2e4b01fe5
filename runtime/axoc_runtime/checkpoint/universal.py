"""ZeRO at another number of processes, by DeepSpeed's universal checkpoints: a file a parameter, which any rank cuts its part of.

DeepSpeed's converter (checkpoint/ds_to_universal.py) knows Adam's states and no others; the planner says so in the plan.
"""

from __future__ import annotations

import io
import shutil
from argparse import Namespace
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Final

from axoc_runtime.job import Job
from axoc_runtime.strategies import barrier, rank

REGROUPED: Final = ".regrouped"
"""The converted copy lies here, in the output folder, until it is read: weights, masters and two moments in fp32."""


def regroup(job: Job, checkpoint: Path) -> Path:
    """A checkpoint folder that DeepSpeed loads at any number of processes. Rank 0 writes it, the others wait."""
    folder = job.output / REGROUPED / checkpoint.name
    if rank() == 0:
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in checkpoint.iterdir():
            if path.is_file():
                (folder / path.name).symlink_to(path.resolve())
        tag = (checkpoint / "latest").read_text(encoding="utf-8").strip()
        _convert(checkpoint / tag, folder / tag)
    barrier()
    return folder


def _convert(source: Path, target: Path) -> None:
    """In this process, which loads data only (safe.py); the converter's own would not."""
    from deepspeed.checkpoint import ds_to_universal

    target.mkdir()
    wanted = Namespace(
        input_folder=str(source), output_folder=str(target), num_extract_workers=1, num_merge_workers=1,
        keep_temp_folder=False, strict=True, inject_missing_state=True,
    )  # fmt: skip
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # it narrates
        ds_to_universal.main(wanted)


def expect_universal(trainer: Any) -> None:
    """Before the engine is made: DeepSpeed reads this from its configuration and nowhere else."""
    plugin = trainer.accelerator.state.deepspeed_plugin
    plugin.hf_ds_config.config["checkpoint"] = {"load_universal": True}
    plugin.deepspeed_config["checkpoint"] = {"load_universal": True}


def end_universal(job: Job, trainer: Any) -> None:
    """Loaded: checkpoints that are written from here on are of this number of processes, and so is the best one."""
    trainer.model_wrapped._config.load_universal_checkpoint = False
    barrier()
    if rank() == 0:
        shutil.rmtree(job.output / REGROUPED, ignore_errors=True)
