"""A tape: what a stretch of a model's forward keeps for its backward, and how much lives at the top of either.

The programs of attention.py, mlp.py, experts.py and blocks.py write a model's operations on it as the modelling code makes
them; the tape follows each tensor from its birth to the last reference that dies, forward and then backward in reverse, as
torch's autograd engine does (torch/csrc/autograd/engine.cpp: the newest ready node first, gradients of parameters at once,
a node's saved tensors released when it has run, a second gradient added in place where nobody else holds the first, as a view's
base does: input_buffer.cpp there, can_accumulate_inplace).

Sizes are bytes, one number a candidate, so that a whole column of candidates is followed at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np

from axoc.cost.columns import Floats

Size = Floats | float
Flow = Literal["new", "same", "over", "waits", "joins", "lowered"]
"""Gradient of an input: a tensor of its own, the output's gradient itself or a view of it, or written over the input; of parts
that are put together, the output's gradient waits for the first part's, and joins all of them in a tensor of its own. "lowered": of
an input that the operation raised to its output's dtype, a tensor in that dtype first."""


@dataclass(eq=False)
class Storage:
    """Memory of one tensor and its views. ``references``: local variables, and operations that saved it."""

    size: Size
    references: int = 1
    in_float8: bool = False
    """A product has cast it."""


@dataclass(eq=False)
class Value:
    """A tensor in a program."""

    storage: Storage
    size: Size
    """Of its gradient: a view has the storage of another tensor and a gradient as large as itself."""
    width: Size
    """Elements a token."""
    bytes: float
    """Of one element."""
    needs_gradient: bool
    gradient: Storage | None = None
    gradient_is_view: bool = False
    waiting: list[Storage] = field(default_factory=list)
    """Gradients of parts, which are to be put together."""


@dataclass(frozen=True, eq=False)
class Parameter:
    """A trained weight in an operation: its gradient in the dtype it is computed in, and what stays of it."""

    computed: Size
    kept: Size
    cast: bool
    """The kept gradient is a copy in another dtype, made while the computed one is there."""
    biased: bool = False
    """Products with a bias have their input's gradient first, others the weight's (torch's derivatives run by name: mat1,
    mat2; mat2, self)."""
    whole: Size = 0.0
    """Where nothing is computed, because the operation has saved it already: the gradient's bytes."""


@dataclass(frozen=True)
class Node:
    output: Value
    inputs: tuple[Value, ...]
    flows: tuple[Flow, ...]
    saved: tuple[Storage, ...]
    scratch: Size
    """Of the backward, beside the inputs' gradients."""
    parameters: tuple[Parameter, ...]
    folded: bool = False
    """A product of rows and tokens taken as one dim: its input's gradient is a view of a product's result, which holds that
    (ATen/native/Linear.cpp, _flatten_nd_linear; LinearAlgebra.cpp, should_fold)."""

    @property
    def is_product(self) -> bool:
        """Of matrices: nothing else turns one input into an output of another width, whose memory is its own."""
        one = len(self.inputs) == 1 and self.output.storage is not self.inputs[0].storage
        return one and bool(np.any(self.output.width > 0)) and self.output.width is not self.inputs[0].width


NEW: Final[Flow] = "new"
ZERO: Final = 0.0


@dataclass(eq=False)
class Tape:
    """``records``: False where nothing is kept for a backward (evaluation, a checkpointed block's first forward)."""

    tokens: Floats
    records: bool = True
    live: Size = ZERO
    top: Size = ZERO
    """Highest ``live`` since the last ``reset``."""
    drops: bool = False
    """Inside a checkpoint, which lets go of what operations save: where one graph saves it all, at its end."""
    top_of_saves: Size = ZERO
    """``top`` when a tensor was last saved."""
    live_at_first_use: Size | None = None
    """``live`` when the backward first asked for a tensor that was saved: then a checkpoint recomputes its block."""
    top_after_product: Size | None = None
    """Of a backward, once it has the first trained matrix's gradient."""
    cached: Size = ZERO
    """Copies of trained weights that autocast keeps until the forward's context ends."""
    copies: Size = ZERO
    """Copies of weights that operations saved."""
    nodes: list[Node] = field(default_factory=list)
    held: list[Value] = field(default_factory=list)
    """Local variables of an outer function, which live until it returns."""
    held_storages: list[Storage] = field(default_factory=list)
    """The same of what is no activation."""

    def reset(self) -> None:
        self.top = self.live

    def allocate(self, size: Size) -> Storage:
        self.live = self.live + size
        self.top = np.maximum(self.top, self.live)
        return Storage(size)

    def scratch(self, *sizes: Size, multiplies: bool = False) -> None:
        """Bytes of each tensor that an operation holds only while it runs, all of them at once. ``multiplies``: with them there
        it calls the matrix library."""
        self.top = np.maximum(self.top, self.live + sum(sizes))

    def release(self, storage: Storage) -> None:
        storage.references -= 1
        if storage.references == 0:
            self.live = self.live - storage.size

    def drop(self, *values: Value) -> None:
        """Local variables go out of scope."""
        for value in values:
            self.release(value.storage)

    @staticmethod
    def weight() -> Storage:
        """A weight that an operation saves: it is there anyway, but a checkpoint has to recompute up to it."""
        return Storage(ZERO)

    def value(self, width: Size, bytes_: float, needs_gradient: bool = True) -> Value:
        size = width * bytes_ * self.tokens
        return Value(self.allocate(size), size, width, bytes_, needs_gradient)

    def again(self, value: Value) -> Value:
        """Another variable for the same tensor."""
        value.storage.references += 1
        return value

    def view(self, value: Value, width: Size | None = None) -> Value:
        """A part of a tensor, under a gradient of its own that is put together with its neighbours' (a slice)."""
        value.storage.references += 1
        wide = value.width if width is None else width
        return Value(value.storage, wide * value.bytes * self.tokens, wide, value.bytes, value.needs_gradient)

    def apply(
        self,
        width: Size,
        bytes_: float,
        inputs: Sequence[Value],
        *,
        flows: Sequence[Flow] = (),
        saves: Sequence[Storage] = (),
        scratch: Size = ZERO,
        parameters: Sequence[Parameter] = (),
        onto: Storage | None = None,
        folded: bool = False,
        kind: str = "",
        sizes: tuple[Size, ...] = (),
    ) -> Value:
        """An operation with one output of ``width`` elements a token. ``onto``: the output is a view of it. ``kind`` and
        ``sizes`` say which kernels it is, for a tape that counts their time (operations.py)."""
        needs = any(i.needs_gradient for i in inputs) or bool(parameters)
        before = self.top  # inputs are saved before an operation runs, its output after
        if onto is None:
            result = self.value(width, bytes_, needs)
        else:
            onto.references += 1
            result = Value(onto, width * bytes_ * self.tokens, width, bytes_, needs)
        if self.records and needs:
            for storage in saves:
                storage.references += 1
            how: tuple[Flow, ...] = tuple(flows) or tuple(NEW for _ in inputs)
            node = Node(result, tuple(inputs), how, tuple(saves), scratch, tuple(parameters), folded)
            self.nodes.append(node)
            if saves:  # a function of its own saves when it has run
                self.top_of_saves = self.top if "over" in how else before
        return result

    def split(self, value: Value, *widths: Size) -> list[Value]:
        """Views made by one operation, such as chunk: its backward puts their gradients together (cat), once."""
        flows: list[Flow] = ["joins"]
        flows += ["waits"] * (len(widths) - 1)
        return [
            self.apply(width, value.bytes, [value], flows=(flow,), onto=value.storage, kind="part")
            for width, flow in zip(widths, flows, strict=True)
        ]

    def did(self, kind: str, *sizes: Size) -> None:
        """Work that makes no tensor of the program's, such as a weight's cast. Counted by operations.py."""

    def keep_output(self, result: Value) -> None:
        """The operation that made ``result`` saves it."""
        if self.nodes and self.nodes[-1].output is result:
            result.storage.references += 1
            self.top_of_saves = self.top
            self.nodes[-1] = replace(self.nodes[-1], saved=(*self.nodes[-1].saved, result.storage))

    def leave(self) -> None:
        """The outer function returns."""
        self.drop(*self.held)
        self.held.clear()
        for storage in self.held_storages:
            self.release(storage)
        self.held_storages.clear()

    def backward(self, output: Value, gradient: Storage) -> None:
        """From the gradient of ``output`` on, which it takes over."""
        output.gradient = gradient
        before: Size | None = None
        while self.nodes:
            node = self.nodes.pop()
            if not isinstance(node, Node):
                node.run(self)
                continue
            if node.saved and node.output.gradient is not None and self.live_at_first_use is None:
                self.live_at_first_use = self.live
            self._step(node)
            if before is None and node.parameters and node.is_product:
                before = self.top
                self.reset()
        if before is not None:
            self.top_after_product = self.top
            self.top = np.maximum(before, self.top)

    def _step(self, node: Node) -> None:
        gradient = node.output.gradient
        if gradient is None:  # nobody asked for this output
            for storage in node.saved:
                self.release(storage)
            return
        if "lowered" in node.flows:
            self._lowered(node, gradient)
            return
        computed = {p: self.allocate(p.computed) for p in node.parameters if not p.biased}
        made = [
            (value, self.allocate(value.size))
            for value, flow in zip(node.inputs, node.flows, strict=True)
            if flow in ("new", "joins") and value.needs_gradient
        ]
        computed |= {p: self.allocate(p.computed) for p in node.parameters if p.biased}
        self.scratch(node.scratch)
        for value, flow in zip(node.inputs, node.flows, strict=True):
            if flow == "waits":
                gradient.references += 1
                value.waiting.append(gradient)
            elif flow in ("same", "over") and value.needs_gradient:
                shared = gradient if flow == "same" else value.storage
                shared.references += 1
                made.append((value, shared))
        node.output.gradient = None
        self.release(gradient)
        if node.flows[:1] == ("joins",):
            for part in node.inputs[0].waiting:
                self.release(part)
            node.inputs[0].waiting.clear()
        for storage in node.saved:
            self.release(storage)
        for parameter, storage in computed.items():
            self._keep(parameter, storage)
        for value, storage in made:
            self._deliver(value, storage, node.folded)

    def _lowered(self, node: Node, gradient: Storage) -> None:
        """A product of a tensor and one of a number a row, in the wider dtype of the two. Each gradient is a product as wide as the output,
        the other factor's first (derivatives.yaml's mul.Tensor, by name); when both are there the operation lets go of what it saved,
        and the engine casts the one and sums the other (engine.cpp, call_function and then validate_outputs)."""
        value, numbers = node.inputs
        other = self.allocate(node.output.size) if numbers.needs_gradient else None
        wide = self.allocate(node.output.size) if value.needs_gradient else None
        node.output.gradient = None
        for storage in node.saved:
            self.release(storage)
        made = []
        if wide is not None:
            made.append((value, self.allocate(value.size)))
            self.release(wide)
        if other is not None:
            made.append((numbers, self.allocate(numbers.size)))
            self.release(other)
        self.release(gradient)
        for each, storage in made:
            self._deliver(each, storage, node.folded)

    def _keep(self, parameter: Parameter, storage: Storage) -> None:
        """A parameter's gradient stays; where it is of another dtype, or one is there already, as a copy or a sum."""
        if parameter.cast:
            self.allocate(parameter.kept)
        else:
            self.live = self.live + parameter.kept
            self.top = np.maximum(self.top, self.live - storage.size)
        self.release(storage)

    def _deliver(self, value: Value, storage: Storage, view: bool) -> None:
        first, apart = value.gradient, value.gradient_is_view
        if first is None:
            value.gradient, value.gradient_is_view = storage, view
        elif first.references == 1 and not apart:
            self.release(storage)
        else:
            value.gradient, value.gradient_is_view = self.allocate(value.size), False
            self.release(first)
            self.release(storage)
