"""Two optimizer steps and an evaluation, as the Trainer runs them, counted phase by phase."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import torch

from axoc_runtime.job import Job
from axoc_runtime.trace.aside import Aside, can_fork
from axoc_runtime.trace.compiled import compiling
from axoc_runtime.trace.cuda_as_cpu import as_on_cuda, no_model
from axoc_runtime.trace.device import Device
from axoc_runtime.trace.launches import Launches, mark
from axoc_runtime.trace.liger import rotations
from axoc_runtime.trace.liveness import Apart, Event, Liveness
from axoc_runtime.trace.model import blocks, build, causal_model, compute_dtype, decoder, depth_of, four_bits_compiled
from axoc_runtime.trace.select import strategy_for
from axoc_runtime.trace.strategy import Rank, Strategy
from axoc_runtime.trace.varlen import pack

Run = Literal["shallow", "only", "whole"]
"""Of a few blocks; of all blocks, with none before it; of all blocks, after one that has compiled them."""
STEPS: Final = 2
"""In the first the optimizer's states are born, in the second they are there from the start."""
MICRO_BATCHES: Final = 2
"""Of a step, where gradients are accumulated over more: the first one finds none and the second one does, as all others."""
Widths = tuple[tuple[int, ...], ...]
"""How many tokens the longest row of each micro-batch has, step by step, as they came."""
EVALUATED: Final = 2
"""Batches of held-out rows."""
NEVER: Final = 2**31 - 1
"""Collections of younger objects before one of all."""
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
    launches: dict[str, Any]
    """Of each micro-step of the second step (launches.py)."""


def trace_depth(
    job: Job,
    config: dict[str, Any],
    device: Device,
    edge: int,
    *,
    rank: Rank = "fullest",
    input_gradients: bool = False,
    padded: bool = False,
    widths: Widths | None = None,
    run: Run = "shallow",
    evaluates: bool = True,
) -> Traced:
    """Runs the job's model as deep as ``config`` says. ``edge`` blocks at each end make up the first and last
    phases of the backward. ``widths``: what is run instead of two steps of full micro-batches. ``evaluates``: held-out
    rows are, where there are any."""
    imported(job)
    gc.collect()  # what an earlier run left must not go in the middle of this one
    padded = padded and job.training.micro_batch_size > 1  # a row alone needs no mask
    with as_on_cuda(device, padded=padded) as live, ExitStack() as stack:
        stack.enter_context(compiling(job, device))
        strategy = stack.enter_context(closing(strategy_for(job, live, rank)))
        with no_model():
            model = build(job, config, device, live, strategy.weights_dtype())
        if job.model.kernels == "liger" and not job.model.compile:
            stack.enter_context(rotations(causal_model(model)))
        if input_gradients:
            model.enable_input_require_grads()
        with no_model():
            strategy.take(model)
        Marks(live, edge).put_on(model, depth_of(config))
        mark(model, blocks(model, depth_of(config)), compiled=job.model.compile)
        launches, steps = Launches(), widths or STEPS * (full_widths(job),)
        held_out, evaluated = evaluates and evaluated_by(job), None
        evaluation = partial(evaluate, strategy, padded, collects=job.model.compile and run == "whole")
        for number, step in enumerate(steps):
            follows = launches if number == len(steps) - 1 else None
            optimizer_step(
                strategy, padded, step, follows, collects=number == 0 and job.model.compile and run == "only"
            )
            if number == 0 and held_out and goes_apart(strategy, run):
                evaluated = Evaluation(live, evaluation)
        if held_out and not (evaluated and evaluated.taken()):
            evaluation()
        return Traced(layers=depth_of(config), phases=dict(live.peaks), events=live.events, launches=launches.to_dict())


@contextmanager
def young_cycles() -> Iterator[None]:
    """Python looks for cycles among what is young alone: next to all that a deep run makes stays to its end, and looking through it again
    and again takes a tenth of the time. What a compiler leaves in older ones, its graphs' inputs among it, is collected when it is told:
    after the first micro-batch (Python would do so somewhen after it), and where an evaluation's graphs are made by a child though they
    would have been there from a shallow run."""
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, NEVER)
    try:
        yield
    finally:
        gc.set_threshold(young, middle, old)


def evaluated_by(job: Job) -> bool:
    return any(d.validation_split > 0 for d in job.datasets)


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
    if four_bits_compiled(job):
        import bitsandbytes  # noqa: F401


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


def full_widths(job: Job) -> tuple[int, ...]:
    return (longest(job),) * job.training.gradient_accumulation_steps


def longest(job: Job) -> int:
    return max(d.max_seq_length for d in job.datasets)


def goes_apart(strategy: Strategy, run: Run) -> bool:
    """Whether the evaluation can be a child's, which takes what it compiled for it with it. Shallow runs end too soon to gain by it."""
    return run != "shallow" and strategy.steps_alike and can_fork()


def optimizer_step(
    strategy: Strategy,
    padded: bool,
    widths: tuple[int, ...],
    launches: Launches | None = None,
    *,
    collects: bool = False,
) -> None:
    """Forward and backward of each micro-batch, clipping, the update, and no gradients left. All of a step's micro-batches are
    on the device from its beginning to its end (transformers' trainer.py, get_batch_samples). Of those that are alike the third
    does as the second. ``collects``: cycles, once the first micro-batch's graphs were made."""
    live, steps = strategy.live, min(len(widths), MICRO_BATCHES) if len(set(widths)) == 1 else len(widths)
    with live.during("forward"):
        batches = [batch(strategy.job, padded, width) for width in widths]
    for number in range(steps):
        with following(live, launches):
            with live.during("forward"):
                strategy.before_forward(last=number == steps - 1)
                loss = forward(strategy, batches[number])
            with live.during("loss"):
                loss.backward()  # type: ignore[no-untyped-call]
                strategy.after_backward(last=number == steps - 1)
        del loss
        if collects and number == 0:
            with live.during("loss"):
                gc.collect()
    with live.during("optimizer"), no_model():
        strategy.update()


@contextmanager
def following(live: Liveness, launches: Launches | None) -> Iterator[None]:
    """Notes what a micro-step launches, where that is asked for."""
    if launches is None:
        yield
        return
    live.launches = launches
    try:
        with launches.micro_step():
            yield
    finally:
        live.launches = None


def batch(job: Job, padded: bool, length: int) -> dict[str, Any]:
    """A micro-batch of rows of that length, or packed. Where some are padded to it, attention gets a mask; else it needs none."""
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


def evaluate(strategy: Strategy, padded: bool, *, collects: bool = False) -> None:
    """Two batches of the held-out split: the second comes while the first one's loss is still there. ``collects``: cycles, between them.

    With Liger no logits are asked for, as objectives/sft.py does; left alone, its models make them when they evaluate.
    """
    options = {"skip_logits": True} if strategy.job.model.kernels == "liger" else {}
    strategy.model.eval()
    with strategy.live.during("evaluate"), torch.no_grad():
        for number in range(EVALUATED):
            if collects and number:
                gc.collect()
            strategy.before_forward(last=True)
            forward(strategy, batch(strategy.job, padded, longest(strategy.job)) | options)
    strategy.model.train()


class Evaluation:
    """An evaluation by a child of this process, from what is there now, while this process makes the next steps. Where blocks are
    compiled its graphs, which are others than a step's, are made on that core too."""

    def __init__(self, live: Liveness, evaluation: Callable[[], None]) -> None:
        self.live, self.standing = live, live.standing()
        self.aside = Aside(lambda: live.apart(evaluation, "evaluate"))

    def taken(self) -> bool:
        """Counts it as if it came now. False where the child has failed, or began with other memory than is there now."""
        found: Apart | None = self.aside.found()
        if found is None or self.live.standing() != self.standing:
            return False
        self.live.take(found, "evaluate")
        return True
