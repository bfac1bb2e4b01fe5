"""The Trainer with checkpoints that are whole or not there, and with runs that go on as if they had not been stopped."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import EarlyStoppingCallback, TrainerCallback

from axoc_runtime.checkpoint.complete import resume_key
from axoc_runtime.checkpoint.keep import SAVING, clear_unfinished, publish, rotate
from axoc_runtime.checkpoint.manifest import Manifest, write_manifest
from axoc_runtime.checkpoint.renamed import load_renamed
from axoc_runtime.checkpoint.rows import StepRows
from axoc_runtime.checkpoint.together import digest_together
from axoc_runtime.checkpoint.universal import end_universal, settings_of
from axoc_runtime.errors import EXIT_TRAINING, RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.optimizers.loraplus import two_rates
from axoc_runtime.strategies import barrier, rank

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer
else:
    _Trainer = object


class Resumable(_Trainer):
    """Goes before a subclass of transformers' Trainer among the bases; ``job`` is set before that one's ``__init__``."""

    job: Job
    control: Any
    optimizer: Any
    regrouped = False
    """The checkpoint gone on from is of another number of processes."""
    _staging = False

    # Saving: into a hidden folder; digests and marker; only then the folder's name.

    def _get_output_dir(self, trial: Any) -> str:
        output = str(super()._get_output_dir(trial))
        return str(Path(output, SAVING)) if self._staging else output

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """When this returns, on any rank, ``checkpoint-N`` is complete and older ones have been rotated."""
        staged = self.job.output / SAVING / f"checkpoint-{self.state.global_step}"
        if rank() == 0:
            clear_unfinished(self.job.output)
            staged.mkdir(parents=True)
        barrier()
        self._staging = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._staging = False
        self._name_best()
        if rank() == 0:
            self._describe(staged)
        barrier()
        self._complete(staged)

    def _name_best(self) -> None:
        """transformers has looked for the best checkpoint where this one was being written."""
        if self.state.best_global_step == self.state.global_step:
            self.state.best_model_checkpoint = str(self.job.output / f"checkpoint-{self.state.global_step}")

    def _describe(self, folder: Path) -> None:
        """Tokenizer and configuration beside the weights: transformers leaves both out where FSDP saves shards."""
        self.state.save_to_json(str(folder / "trainer_state.json"))
        self.processing_class.save_pretrained(folder)
        if self.job.adapter is None:
            self.accelerator.unwrap_model(self.model).config.save_pretrained(folder)

    def _complete(self, staged: Path) -> None:
        files, unseen = digest_together(staged)
        if unseen:
            message = f"{staged}: the first node does not see {unseen[0]}, which another node has written"
            raise RuntimeFailure(message, EXIT_TRAINING, "put output_dir on a file system that all nodes share")
        if rank() == 0:
            write_manifest(staged, self._manifest(files))
            publish(staged, self.job.output)
            rotate(self.job.output, self.state.best_global_step)
        barrier()

    def _manifest(self, files: dict[str, Any]) -> Manifest:
        return Manifest(
            global_step=self.state.global_step,
            strategy=self.job.distributed.strategy,
            world_size=self.job.distributed.world_size,
            same=resume_key(self.job),
            resume=self.job.to_dict()["resume"],
            files=files,
        )

    # Going on.

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_renamed(self.job, self.model if model is None else model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        load_renamed(self.job, self.model, self.state.best_model_checkpoint)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        if self.optimizer is None and self.job.adapter is not None and self.job.adapter.loraplus_lr_ratio is not None:
            self.optimizer = two_rates(self.job, self)
        optimizer = super().create_optimizer(*args, **kwargs)
        self.planned_groups = settings_of(optimizer)
        return optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Rows by step, where the objective draws them at random and in no order of its own."""
        sampler = super()._get_train_sampler(train_dataset)
        if type(sampler) is not torch.utils.data.RandomSampler:
            return sampler
        training = self.job.training
        return StepRows(len(sampler), training.global_batch_size, training.seed, lambda: self.state.global_step)

    def _run_epoch(self, **kwargs: Any) -> None:
        """transformers makes one step more where the checkpoint is of the run's last: it looks after a step only."""
        if self.state.global_step >= self.state.max_steps or stopped_early(self.callback_handler.callbacks):
            self.control.should_training_stop = True
        else:
            super()._run_epoch(**kwargs)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """At another number of processes the saved streams belong to no rank: each draws a new one, the same every time."""
        if not self.regrouped:
            super()._load_rng_state(checkpoint)
            return
        seed = int(
            np.random.SeedSequence([self.job.training.seed, self.state.global_step, rank()]).generate_state(1)[0]
        )
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)


def stopped_early(callbacks: list[TrainerCallback]) -> bool:
    """Patience had run out before the checkpoint was written."""
    stoppers = [c for c in callbacks if isinstance(c, EarlyStoppingCallback)]
    return any(c.early_stopping_patience_counter >= c.early_stopping_patience for c in stoppers)


class Restore(TrainerCallback):
    """What transformers leaves out when a run goes on: the patience that is used up, the best checkpoint of a moved folder,
    and the plan's steps between logs, evaluations and checkpoints, in place of which it takes those of the stopped run.

    Its ``restore_callback_states_from_checkpoint`` makes new callbacks from saved arguments, which the spec may have changed.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.trainer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.global_step:
            return
        state.compute_steps(args, state.max_steps)
        best = self.job.output / f"checkpoint-{state.best_global_step}"
        state.best_model_checkpoint = str(best) if best.is_dir() else None
        if self.trainer.regrouped and self.job.distributed.strategy.startswith("zero"):
            end_universal(self.job, self.trainer)
        saved = state.stateful_callbacks.get("EarlyStoppingCallback")
        for callback in self.trainer.callback_handler.callbacks:
            if isinstance(callback, EarlyStoppingCallback) and isinstance(saved, dict):
                callback.early_stopping_patience_counter = saved["attributes"]["early_stopping_patience_counter"]
