"""Stretches of a micro-step, each with its device seconds and launches: what the timeline in time.py is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from axoc.cost import blocks, head
from axoc.cost.backward import BACKWARD
from axoc.cost.columns import Floats
from axoc.cost.forward import FORWARD
from axoc.cost.fusion import BARRIERS, fused_backward, fused_forward, left_alone
from axoc.cost.kernels import Kernels
from axoc.cost.launching import HostCosts
from axoc.cost.layers import Setting
from axoc.cost.meter import CASTS, MEMORY_BOUND, PARTS, Meter
from axoc.cost.operations import Operation, Operations, sums
from axoc.cost.tape import Size, Value
from axoc.cost.tensors import biases

COUNTED: Final = ("launches", "triton", "dequantized", "adapted")
FIRST_HOOKS: Final = 0.2
"""Of a checkpoint's host seconds, in the forward: 0.6 of 2.9 ms of a Llama block (benchmarks/rows/h100-kernel-times.jsonl.xz, pieces)."""
MODEL_LAUNCHES: Final = 30.0
"""Of a forward outside its blocks: positions, rotary tables, masks, labels shifted, accelerate's conversions."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Of one block, or of what comes before or after the blocks; one row a shape."""

    device: dict[str, Floats]
    """Seconds by part (meter.PARTS)."""
    launches: Size
    triton: Size = 0.0
    dequantized: float = 0.0
    adapted: float = 0.0

    def host(self, costs: HostCosts) -> Size:
        """Seconds that launching it takes."""
        return (
            self.launches * costs.operation
            + self.triton * costs.triton
            + self.dequantized * costs.dequantize
            + self.adapted * costs.adapter
        )

    @property
    def seconds(self) -> Floats:
        whole: Floats = sum(self.device.values(), np.zeros(1))
        return whole


@dataclass(frozen=True, kw_only=True)
class Passes:
    forward: Stretch
    again: Stretch
    """What a checkpointed block runs a second time."""
    backward: Stretch
    saved: float = 0.0
    """Tensors that are kept for the backward: under a checkpoint, each goes through its hooks."""

    def hooks(self, costs: HostCosts) -> tuple[float, float]:
        """Host seconds of a checkpoint: of its first forward, and of what comes after."""
        seconds = self.saved * costs.saved
        return FIRST_HOOKS * seconds, (1.0 - FIRST_HOOKS) * seconds


def passes(s: Setting, kernels: Kernels, tape: Operations, output: Value) -> Passes:
    """Of what was recorded on ``tape``."""
    reached = list(tape.reached(output))
    backward = _meter(s, kernels, tape)
    if s.compiled:
        fused_backward(backward, tape.all, output)
    for operation in left_alone(reached) if s.compiled else reached:
        BACKWARD[operation.kind](operation, backward)
    for value, additions in [] if s.compiled else sums(reached):
        backward.pointwise("add", value.width * tape.tokens, value.bytes, times=float(additions))
    forward = _forward(s, kernels, tape, tape.all, output)
    return Passes(
        forward=forward,
        again=_forward(s, kernels, tape, _run_again(s, tape), output),
        backward=replace(_stretch(backward), adapted=forward.adapted),
        saved=float(_saved(s, reached)),
    )


def _saved(s: Setting, reached: Sequence[Operation]) -> int:
    """Compiled, what its products and attention keep; what lies between them is computed anew from that."""
    return sum(len(op.saves) for op in reached if not s.compiled or op.kind in BARRIERS)


def _run_again(s: Setting, tape: Operations) -> Sequence[Operation]:
    """Of a checkpointed block. Compiled, it is one autograd function, which saves its tensors once its whole forward has run
    (torch/csrc/autograd/python_function.cpp, process_outputs): nothing is left out."""
    return tape.all if s.compiled else tape.all[: tape.needed]


def _forward(s: Setting, kernels: Kernels, tape: Operations, operations: Sequence[Operation], output: Value) -> Stretch:
    meter = _meter(s, kernels, tape)
    if s.compiled:
        fused_forward(meter, operations, output)
    for operation in left_alone(operations) if s.compiled else operations:
        FORWARD[operation.kind](operation, meter)
    return _stretch(meter)


def _meter(s: Setting, kernels: Kernels, tape: Operations) -> Meter:
    return Meter(s.scenario, kernels, len(tape.tokens), s.row_tokens)


def _stretch(meter: Meter) -> Stretch:
    return Stretch(
        device={part: meter.seconds.get(part, np.zeros(meter.rows)) for part in PARTS},
        launches=meter.launches,
        triton=meter.triton,
        dequantized=meter.dequantized,
        adapted=meter.adapted,
    )


def block(s: Setting, kernels: Kernels, tokens: Floats, kind: blocks.Kind) -> Passes:
    tape = Operations(tokens)
    entered = tape.value(s.scenario.model.hidden_size, s.stream, needs_gradient=not kind.first)
    output = blocks.block(tape, s, entered, kind)
    counted = passes(s, kernels, tape, output)
    return counted if not biases(s.scenario.model) else _with_biases(s, kernels, tokens, counted)


def _with_biases(s: Setting, kernels: Kernels, tokens: Floats, counted: Passes) -> Passes:
    """Added in the products' own kernels; autocast casts them, and each gradient is a sum over the tokens."""
    forward, backward = Meter(s.scenario, kernels, len(tokens)), Meter(s.scenario, kernels, len(tokens))
    casts = s.autocast and s.weight > s.compute
    for width in biases(s.scenario.model):
        forward.tiny(1.0 if casts else 0.0)
        if s.trained:
            backward.pointwise("sum_rows", width * tokens, s.compute, width)
            backward.tiny(1.0 if casts else 0.0)
    more = Passes(forward=_stretch(forward), again=_stretch(forward), backward=_stretch(backward))
    return total([(1.0, counted), (1.0, more)])


def tail(s: Setting, kernels: Kernels, tokens: Floats) -> Passes:
    """Final norm, head, loss."""
    s, tape = s.outside, Operations(tokens)
    loss = head.run(tape, s)
    return passes(s, kernels, tape, loss)


def embedding(s: Setting, kernels: Kernels, tokens: Floats) -> Passes:
    """The lookup; its gradient where it is trained, and where it is tied, the sum with the head's."""
    s = s.outside
    model, sizes = s.scenario.model, s.scenario.sizes
    meters = [Meter(s.scenario, kernels, len(tokens)) for _ in range(2)]
    width, vocabulary = float(model.hidden_size), float(model.vocab_size)
    meters[0].add(MEMORY_BOUND, kernels.embedding(tokens, width, vocabulary, s.stream, backward=False))
    meters[0].tiny(MODEL_LAUNCHES)
    if model.family in ("gemma2", "gemma3"):  # times the root of the width
        meters[0].pointwise("mul_scalar", width * tokens, s.stream)
    if s.trained:
        seconds = kernels.embedding(tokens, width, vocabulary, s.stream, backward=True)
        meters[1].add(MEMORY_BOUND, seconds)
        if sizes.lm_head == 0:
            meters[1].add(CASTS, kernels.pointwise("add_", float(sizes.vocabulary_matrix), s.weight))
    forward, backward = (_stretch(m) for m in meters)
    return Passes(forward=forward, again=forward, backward=backward)


def grouped_blocks(s: Setting, kernels: Kernels, tokens: Floats) -> Iterator[tuple[float, Passes]]:
    """Groups of blocks from first to last: how many, and the mean of their kinds."""
    for group in blocks.groups(s.scenario):
        count = sum(kind.count for kind in group)
        yield count, total([(kind.count / count, block(s, kernels, tokens, kind)) for kind in group])


def total(shares: list[tuple[float, Passes]]) -> Passes:
    """Each so many times, one after the other."""

    def part(name: str) -> Stretch:
        found = [(share, getattr(p, name)) for share, p in shares]
        device = {k: sum((share * x.device[k] for share, x in found), np.zeros(1)) for k in PARTS}
        counts = {n: sum(share * getattr(x, n) for share, x in found) for n in COUNTED}
        return Stretch(device=device, **counts)

    saved = sum(share * p.saved for share, p in shares)
    return Passes(forward=part("forward"), again=part("again"), backward=part("backward"), saved=saved)
