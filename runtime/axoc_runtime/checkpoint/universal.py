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

import torch

from axoc_runtime.job import Job
from axoc_runtime.strategies import barrier, rank

REGROUPED: Final = ".regrouped"
"""The converted copy lies here, in the output folder, until it is read: weights, masters and two moments in fp32."""

STEPPED: Final = ("params", "lr", "initial_lr")


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
    engine = trainer.model_wrapped
    engine._config.load_universal_checkpoint = False
    _mend_zero3(engine.optimizer.optimizer, trainer.planned_groups)
    barrier()
    if rank() == 0:
        shutil.rmtree(job.output / REGROUPED, ignore_errors=True)


def settings_of(optimizer: Any) -> list[dict[str, Any]]:
    """What the plan sets in each group of parameters, and no step changes."""
    return [{k: v for k, v in group.items() if k not in STEPPED} for group in optimizer.param_groups]


def _mend_zero3(optimizer: Any, planned: list[dict[str, Any]]) -> None:
    """DeepSpeed 0.19.8's stage3.py (``load_hp_checkpoint_state_from_checkpoint_dir_stage3``) gives all groups one count of
    steps, which each then advances, and the first group's settings: weights without decay would decay."""
    for state in optimizer.state.values():
        if isinstance(state.get("step"), torch.Tensor):
            state["step"] = state["step"].clone()
    for group, settings in zip(optimizer.param_groups, planned, strict=True):
        group.update(settings)
