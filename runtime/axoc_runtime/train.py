"""`train`: under torchrun, one process a device. Loads what `prepare` left, trains, evaluates, saves, reports."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from axoc_runtime.checkpoint.complete import candidates, complete
from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.files import write_json
from axoc_runtime.job import Job
from axoc_runtime.strategies import barrier, device_of, prepare_environment, rank


def run(job: Job, resume: bool = False, fresh: bool = False) -> None:
    """Raises RuntimeFailure with the exit code of the failure."""
    if resume and _finished(job):
        if rank() == 0:
            print("axoc: this job is finished; nothing to resume", flush=True)
        return
    found = candidates(job) if resume else []
    unfinished = [] if resume or fresh or (job.output / "metrics.json").exists() else complete(job.output)
    if unfinished:
        message = f"an unfinished run has left {unfinished[-1]}"
        raise RuntimeFailure(message, EXIT_INPUTS, "--resume goes on from it, --fresh deletes it and starts anew")
    prepare_environment(job)
    _train(job, found)


def _train(job: Job, found: list[Path]) -> None:
    """Heavy imports happen here, after the environment is set. ``found``: checkpoints to go on from, the newest first."""
    from axoc_runtime.checkpoint.resume import checkpoint_to_load
    from axoc_runtime.checkpoint.safe import load_only_data
    from axoc_runtime.comparison import comparison, whole_run
    from axoc_runtime.metrics import measured

    began = time.perf_counter()
    load_only_data(job.distributed.strategy)
    trainer, tokenizer, start, timing = build(job, resumed=bool(found))
    if not found:
        trainer.accelerator.wait_for_everyone()  # no rank may still be looking at what the first one deletes
        if rank() == 0:
            clear_earlier_run(job)
        trainer.accelerator.wait_for_everyone()
        if rank() == 0:
            print("axoc: training from the start", flush=True)
    trainer.train(resume_from_checkpoint=checkpoint_to_load(job, trainer, found) if found else None)
    after = None if trainer.eval_dataset is None else last_evaluation(job, trainer)
    report = measured(job, trainer, timing, start.before, after) | {"asserted": start.asserted}
    from axoc_runtime.checkpoint.save import save_trained

    save_trained(job, trainer, tokenizer)
    report |= whole_run(report["predicted"], time.perf_counter() - began, resumed=bool(found))
    report["comparison"] = comparison(report)
    if rank() == 0:
        write_json(job.output / "metrics.json", report)
    _leave()


def build(job: Job, *, resumed: bool) -> tuple[Any, Any, Any, Any]:
    """Trainer, tokenizer, and the callbacks that are read afterwards."""
    quiet(job)
    import transformers

    from axoc_runtime.arguments import training_arguments
    from axoc_runtime.callbacks.activity import Follow
    from axoc_runtime.callbacks.divergence import Divergence
    from axoc_runtime.callbacks.metric_lines import MetricLines
    from axoc_runtime.callbacks.plugins import own_callbacks
    from axoc_runtime.callbacks.progress import Progress
    from axoc_runtime.callbacks.start import Start
    from axoc_runtime.callbacks.timing import Throughput, Timing
    from axoc_runtime.callbacks.trim import Trim
    from axoc_runtime.checkpoint.trainer import Restore
    from axoc_runtime.models.tokenizer import load_tokenizer
    from axoc_runtime.objectives.registry import objective_of
    from axoc_runtime.prepare import load_batches

    transformers.set_seed(job.training.seed)
    own = own_callbacks()  # first: one that is broken stops the run before the model is loaded
    tokenizer = load_tokenizer(job)
    rows, held_out = load_batches(job)
    evaluates = held_out is not None and len(held_out) > 0
    arguments = training_arguments(job, evaluates=evaluates)  # before the model: ZeRO-3 partitions while it loads
    objective = objective_of(job)
    model = objective.load(job, device_of(job))
    start, timing = Start(job, resumed=resumed), Timing()
    throughput, divergence = Throughput(timing), Divergence(job)
    progress, lines, restore = Progress(job, throughput), MetricLines(job, throughput), Restore(job)
    ours = [Follow(), divergence, start, timing, progress, lines, restore, Trim(job)]
    trainer = objective.trainer(
        job,
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=held_out if evaluates else None,
        processing_class=tokenizer,
        callbacks=[*ours, *early_stopping(job, evaluates), *own],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    start.trainer = divergence.trainer = throughput.trainer = restore.trainer = trainer
    return trainer, tokenizer, start, timing


def last_evaluation(job: Job, trainer: Any) -> dict[str, float]:
    """The objective's figures of the model as it now is: after the last step, or the best one where that was gone back to.

    Measured anew only where that step was not evaluated on all rows.
    """
    from axoc_runtime.objectives.registry import objective_of

    state, objective = trainer.state, objective_of(job)
    step = state.best_global_step if trainer.args.load_best_model_at_end else state.global_step
    logged = objective.figures[-1].log
    found = [] if trainer.samples else state.log_history
    last = next((e for e in reversed(found) if logged in e and e["step"] == step), None)
    return objective.measured(trainer.evaluate() if last is None else last)


def early_stopping(job: Job, evaluates: bool) -> list[Any]:
    from transformers import EarlyStoppingCallback

    patience = job.training.early_stopping_patience
    return [EarlyStoppingCallback(early_stopping_patience=patience)] if patience is not None and evaluates else []


def quiet(job: Job) -> None:
    """Libraries speak only when something is wrong, unless the job asks for more."""
    verbose = job.logging_level.upper() == "DEBUG"
    import transformers

    transformers.logging.set_verbosity(transformers.logging.INFO if verbose else transformers.logging.ERROR)
    logging.getLogger("trl").setLevel(logging.INFO if verbose else logging.ERROR)
    transformers.logging.disable_progress_bar()


def clear_earlier_run(job: Job) -> None:
    """A fresh run must not be resumed from an older one's checkpoints later on, nor report its figures."""
    import shutil

    from axoc_runtime.checkpoint.keep import DELETING, SAVING

    for pattern in ("checkpoint-*", "damaged-checkpoint-*", SAVING, DELETING):
        for path in job.output.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
    for name in ("metrics.json", "metrics.jsonl", "metrics.md", "before.json", "samples.json"):
        (job.output / name).unlink(missing_ok=True)


def _finished(job: Job) -> bool:
    """metrics.json is written last, and names the spec it is of: one that was changed since is trained again."""
    try:
        metrics = json.loads((job.output / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(metrics.get("spec_digest") == job.spec_digest)


def _leave() -> None:
    import torch.distributed as dist

    barrier()
    if dist.is_initialized():
        dist.destroy_process_group()
