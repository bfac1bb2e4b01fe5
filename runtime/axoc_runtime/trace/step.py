"""Two optimizer steps and an evaluation, as the Trainer runs them, counted phase by phase."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch

from axoc_runtime.job import Job
from axoc_runtime.trace.compiled import compiling
from axoc_runtime.trace.cuda_as_cpu import as_on_cuda
from axoc_runtime.trace.device import Device
from axoc_runtime.trace.liger import rotations
from axoc_runtime.trace.liveness import Event, Liveness
from axoc_runtime.trace.model import blocks, build, causal_model, compute_dtype, decoder, depth_of
from axoc_runtime.trace.select import strategy_for
from axoc_runtime.trace.strategy import Rank, Strategy
from axoc_runtime.trace.varlen import pack

STEPS: Final = 2
"""In the first the optimizer's states are born, in the second they are there from the start."""
MICRO_BATCHES: Final = 2
"""Of a step, where gradients are accumulated over more: the first one finds none and the second one does, as all others."""
VOCABULARY_SHOWN: Final = 100
"""Token ids are drawn below it: their values change nothing."""
PHASES: Final = (
    "load",
    "forward",
    "loss",
    "backward_first",
    "backward_middle",
    "backward_last",
    "optimizer",
    "evaluate",
)
"""`loss` is the head's backward; `backward_first` the last blocks', `backward_last` that of the first ones, until the
end. A phase's peak then moves along one straight line as blocks are added between the two."""


@dataclass(frozen=True, kw_only=True)
class Traced:
    """What one run at one depth needed."""

    layers: int
    phases: dict[str, int]
    """Peak live bytes by phase."""
    events: list[Event]


def trace_depth(
    job: Job,
    config: dict[str, Any],
    device: Device,
    edge: int,
    *,
    rank: Rank = "fullest",
    input_gradients: bool = False,
    padded: bool = False,
) -> Traced:
    """Runs the job's model as deep as ``config`` says. ``edge`` blocks at each end make up the first and last
    phases of the backward."""
    imported(job)
    gc.collect()  # what an earlier run left must not go in the middle of this one
    with as_on_cuda(device, padded=padded) as live, ExitStack() as stack:
        stack.enter_context(compiling(job, device))
        strategy = stack.enter_context(closing(strategy_for(job, live, rank)))
        model = build(job, config, device, live, strategy.weights_dtype())
        if job.model.kernels == "liger" and not job.model.compile:
            stack.enter_context(rotations(causal_model(model)))
        if input_gradients:
            model.enable_input_require_grads()
        strategy.take(model)
        Marks(live, edge).put_on(model, depth_of(config))
        for _ in range(STEPS):
            optimizer_step(strategy, padded)
        if any(d.validation_split > 0 for d in job.datasets):
            evaluate(strategy, padded)
        return Traced(layers=depth_of(config), phases=dict(live.peaks), events=live.events)


def imported(job: Job) -> None:
    """What the job needs, and no more: each of these takes seconds. Not inside the fake world, where all that a module
    makes when it is imported would be counted."""
    if job.adapter is not None:
        import peft  # noqa: F401
    if job.distributed.strategy == "fsdp":
        import accelerate.utils.fsdp_utils  # noqa: F401
        import torch.distributed.fsdp  # noqa: F401
        import transformers.distributed.tensor_parallel  # noqa: F401

        import axoc_runtime.strategies.tensor
    if job.model.compile:
        import axoc_runtime.trace.inductor  # noqa: F401


class Marks:
    """Hooks that tell the phases of the backward apart by the gradients that have arrived."""

    def __init__(self, live: Liveness, edge: int) -> None:
        self.live, self.edge = live, edge

    def put_on(self, model: Any, layers: int) -> None:
        decoder(model).register_forward_hook(self._after_decoder)
        if layers > 2 * self.edge:
            found = blocks(model, layers)
            found[layers - self.edge].register_forward_pre_hook(self._before("backward_middle"), with_kwargs=True)
            found[self.edge].register_forward_pre_hook(self._before("backward_last"), with_kwargs=True)

    def _after_decoder(self, module: Any, args: Any, output: Any) -> None:
        self._when_gradient_of(output[0], "backward_first")

    def _before(self, phase: str) -> Any:
        def hook(module: Any, args: Any, kwargs: Any) -> None:
            self._when_gradient_of(args[0] if args else kwargs["hidden_states"], phase)

        return hook

    def _when_gradient_of(self, hidden: Any, phase: str) -> None:
        if hidden.requires_grad and torch._C._current_graph_task_id() == -1:  # not when a checkpoint recomputes
            hidden.register_hook(lambda gradient: self._turn(phase))

    def _turn(self, phase: str) -> None:
        self.live.phase = phase
        self.live.mark()


def optimizer_step(strategy: Strategy, padded: bool) -> None:
    """Forward and backward of each micro-batch, clipping, the update, and no gradients left."""
    live, steps = strategy.live, min(strategy.job.training.gradient_accumulation_steps, MICRO_BATCHES)
    for number in range(steps):
        with live.during("forward"):
            inputs = batch(strategy.job, padded)
            strategy.before_forward(last=number == steps - 1)
            loss = forward(strategy, inputs)
        del inputs
        with live.during("loss"):
            loss.backward()  # type: ignore[no-untyped-call]
            strategy.after_backward(last=number == steps - 1)
        del loss
    with live.during("optimizer"):
        strategy.update()


def batch(job: Job, padded: bool) -> dict[str, Any]:
    """A full micro-batch: rows as long as the longest allowed, or packed. Where some are padded to that length, attention gets a
    mask; else it needs none."""
    length = max(d.max_seq_length for d in job.datasets)
    if any(d.packing for d in job.datasets):
        return pack(job.training.micro_batch_size, length, VOCABULARY_SHOWN)
    tokens = torch.randint(0, VOCABULARY_SHOWN, (job.training.micro_batch_size, length))
    rows = {"input_ids": tokens, "labels": tokens.clone()}
    return {**rows, "attention_mask": torch.ones_like(tokens)} if padded else rows


def forward(strategy: Strategy, inputs: dict[str, Any]) -> torch.Tensor:
    """The loss. accelerate raises all outputs to fp32, logits included, before the Trainer drops them
    (accelerate/utils/operations.py, ConvertOutputsToFp32)."""
    dtype = compute_dtype(strategy.job) if strategy.lowers else None
    with lowered(dtype):
        output = strategy.model(**inputs, num_items_in_batch=torch.ones((), dtype=torch.int64))
    kept = {k: v for k, v in output.items() if isinstance(v, torch.Tensor)}
    if dtype is not None:
        kept = {k: v.float() for k, v in kept.items()}
    del output
    loss: torch.Tensor = kept["loss"]
    return loss


@contextmanager
def lowered(dtype: torch.dtype | None) -> Iterator[None]:
    """Autocast as accelerate wraps it around the model's forward, and around nothing else."""
    with nullcontext() if dtype is None else torch.autocast("cpu", dtype):
        yield


def evaluate(strategy: Strategy, padded: bool) -> None:
    """Two batches of the held-out split: the second comes while the first one's loss is still there.

    With Liger no logits are asked for, as objectives/sft.py does; left alone, its models make them when they evaluate.
    """
    options = {"skip_logits": True} if strategy.job.model.kernels == "liger" else {}
    strategy.model.eval()
    with strategy.live.during("evaluate"), torch.no_grad():
        for _ in range(2):
            strategy.before_forward(last=True)
            forward(strategy, batch(strategy.job, padded) | options)
    strategy.model.train()
