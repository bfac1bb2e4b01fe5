"""A tape whose tensors are blocks of the allocator's model, with checkpoints that recompute when the backward comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from axoc.cost.compiled.block import Step
from axoc.cost.replay.allocator import Allocator, Block
from axoc.cost.replay.heap import Chunk, Heap
from axoc.cost.tape import Node, Parameter, Size, Storage, Tape, Value

Program = Callable[[Tape, Value], Value]
ENDLESS: Final = 1 << 62
GATHERING: Final = 1
"""FSDP2's stream that gathers are copied into (all_gather_copy_in_stream)."""
REDUCING: Final = 2
"""Its reduce_scatter_stream."""


@dataclass(eq=False)
class Placed(Storage):
    """Memory that has an address."""

    block: Block | Chunk | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A stretch of the forward of which only the input was kept."""

    run: Program
    entered: Value
    output: Value
    again: Again


@dataclass(frozen=True)
class Call:
    """What else happens at this point of the backward."""

    run: Callable[[], None]
    output: None = None


class Recorder(Tape):
    """One candidate's tape: sizes are numbers, and every birth and death of a tensor reaches the allocator."""

    def __init__(self, tokens: float, allocator: Allocator | Heap) -> None:
        self.allocator: Any = allocator
        self.gradients: list[Storage] = []
        """Of parameters, until the optimizer has used them."""
        self.reduces = False
        """Gradients wait, whole, until their unit is reduced."""
        self.unreduced: list[Storage] = []
        self.arrived: Callable[[Storage], None] | None = None
        """ZeRO-1 and 2: told of each gradient of a parameter."""
        self.hands_over = False
        """It is theirs from then on, and whole."""
        self.workspaces: list[float] = []
        """Bytes that the matrix library will ask for once, when a backward first multiplies, be it in what is recomputed."""
        self._returns = False
        self._ahead: list[Storage] = []
        """Gradients that were there before a block was recomputed for the others."""
        self._cache: list[Storage] = []
        self._cached: Size = 0.0
        self._until = ENDLESS
        """Recomputing stops with the operation that saves last: what follows makes no tensor (early_stop of
        torch/utils/checkpoint.py)."""
        super().__init__(tokens)  # type: ignore[arg-type]

    @property
    def cached(self) -> Size:
        """Autocast's copies of weights that nothing saved: memory until the forward's context ends."""
        return self._cached

    @cached.setter
    def cached(self, size: Size) -> None:
        if more := size - self._cached:
            self._cache.append(self.allocate(more))
        self._cached = size

    def end_autocast(self) -> None:
        while self._cache:
            self.release(self._cache.pop())
        self._cached = 0.0

    def allocate(self, size: Size) -> Storage:
        if self._ahead and float(self._ahead[0].size) == float(size):
            return self._ahead.pop(0)
        wanted = size if self._until > 0 else 0.0
        return Placed(size, block=self.allocator.allocate(wanted))

    def allocate_on(self, stream: int, size: Size) -> Storage:
        """Outside of what is recomputed."""
        return Placed(size, block=self.allocator.allocate(size, stream))

    def scratch(self, *sizes: Size, multiplies: bool = False) -> None:
        if self._until <= 0:
            return
        blocks = [self.allocator.allocate(size) for size in sizes]
        if multiplies:
            self._multiplied()
        for block in blocks:
            self.allocator.free(block)

    def release(self, storage: Storage) -> None:
        storage.references -= 1
        if storage.references == 0 and isinstance(storage, Placed):
            self.allocator.free(storage.block)

    def again_stored(self, storage: Storage) -> Storage:
        storage.references += 1
        return storage

    def apply(self, *args: Any, **keywords: Any) -> Value:
        self._until -= 1
        result = super().apply(*args, **keywords)
        if keywords.get("kind") in ("linear", "linear_4bit"):
            self._multiplied()
        return result

    def _multiplied(self) -> None:
        if self._returns and self.workspaces:
            self.allocate(self.workspaces.pop())

    def checkpointed(self, run: Program, value: Value, again: Again) -> Value:
        """Runs without keeping anything but the input."""
        self.records, self.drops = False, True
        output = run(self, value)
        self.records, self.drops = True, False
        value.storage.references += 1
        output.needs_gradient = True
        self.nodes.append(Checkpoint(run, value, output, again))  # type: ignore[arg-type]
        return output

    def backward(self, output: Value, gradient: Storage) -> None:
        output.gradient, self._returns = gradient, True
        while self.nodes:
            node: Node | Checkpoint | Call | Step = self.nodes.pop()
            if isinstance(node, Call):
                node.run()
            elif isinstance(node, Checkpoint):
                self._recompute(node)
            elif isinstance(node, Node):
                self._step(node)
            else:
                node.run(self)

    def _recompute(self, checkpoint: Checkpoint) -> None:
        gradient = checkpoint.output.gradient
        assert gradient is not None
        checkpoint.output.gradient = None
        outer, self.nodes = self.nodes, []
        ahead = self._made_ahead(checkpoint.again)
        self._until = checkpoint.again.last_save
        output = checkpoint.run(self, checkpoint.entered)
        self._until, self._ahead = ENDLESS, ahead
        self.end_autocast()
        self.drop(output)
        self.backward(output, gradient)
        self.nodes = outer
        assert not self._ahead
        self.release(checkpoint.entered.storage)

    def _made_ahead(self, again: Again) -> list[Storage]:
        """Those that are gone before the others are asked for keep their places in the order, without memory."""
        found: list[Placed] = []
        for number, size in again.ahead:
            if size is None:
                self.allocator.free(found[number].block)
                found[number].block = None
            else:
                found.append(Placed(size, block=self.allocator.allocate(size)))
        return list(found)

    def _step(self, node: Node) -> None:
        if self.workspaces and node.is_product:  # its result is there before the library is called
            weights = [p.computed for p in node.parameters if not p.biased]
            result = self.allocate((weights or [node.inputs[0].size])[0])
            self.allocate(self.workspaces.pop())
            self.release(result)
        super()._step(node)

    def _keep(self, parameter: Parameter, storage: Storage) -> None:
        """What stays is the tensor that was computed, or a copy in another dtype, or this rank's part; nothing where it
        is added to the gradient of the micro-step before. ``computed`` is nothing where the operation had saved it
        already (Liger's loss), whose memory is free at this moment."""
        if self.reduces or self.hands_over:
            self._keep_whole(parameter, storage)
            return
        if self.arrived:
            self.arrived(storage)
        if parameter.kept > 0 and parameter.kept == storage.size:
            self.gradients.append(storage)
            return
        if parameter.kept > 0:
            self.gradients.append(self.allocate(parameter.kept))
        self.release(storage)

    def _keep_whole(self, parameter: Parameter, storage: Storage) -> None:
        """What Liger's loss has saved is the head's gradient, and no tensor is made here."""
        whole = storage
        if parameter.computed <= 0:
            self.release(storage)
            whole = self.allocate(parameter.whole)
        if self.arrived:
            self.arrived(whole)
        else:
            self.unreduced.append(whole)

    def zero_gradients(self) -> None:
        for storage in self.gradients:
            self.release(storage)
        self.gradients.clear()


class Counter(Tape):
    """Counts operations up to the last one that saves a tensor; and of the backward what it makes before it asks for one, which
    is when a checkpoint recomputes (_checkpoint_hook of torch/utils/checkpoint.py)."""

    def __init__(self, tokens: float) -> None:
        self.count = self.last_save = 0
        self.ahead: list[tuple[int, float | None]] = []
        self._made: list[Storage] = []
        self._asks = True
        super().__init__(tokens)  # type: ignore[arg-type]

    def apply(self, *args: Any, **keywords: Any) -> Value:
        self.count += 1
        if keywords.get("saves"):
            self.last_save = self.count
        return super().apply(*args, **keywords)

    def keep_output(self, result: Value) -> None:
        self.last_save = self.count + 1
        super().keep_output(result)

    def allocate(self, size: Size) -> Storage:
        made = super().allocate(size)
        if not self._asks:
            self.ahead.append((len(self._made), float(size)))
            self._made.append(made)
        return made

    def release(self, storage: Storage) -> None:
        super().release(storage)
        if not self._asks and storage.references == 0 and storage in self._made:
            self.ahead.append((self._made.index(storage), None))

    def _step(self, node: Node) -> None:
        if node.saved and node.output.gradient is not None:
            self._asks = True
        super()._step(node)

    def backward(self, output: Value, gradient: Storage) -> None:
        self._asks = False
        super().backward(output, gradient)


@dataclass(frozen=True)
class Again:
    """How a checkpointed program runs again."""

    last_save: int
    """How many operations: one that is compiled is a single one, which runs whole."""
    ahead: tuple[tuple[int, float | None], ...] = ()
    """Gradients that its backward has made before: which, and its bytes; None where it is let go of."""


def again(program: Program, tokens: float, width: float, bytes_: float, needs_gradient: bool) -> Again:
    counter = Counter(tokens)
    output = program(counter, counter.value(width, bytes_, needs_gradient))
    if not counter.count:
        return Again(ENDLESS)
    counter.backward(output, Storage(output.size))
    return Again(counter.last_save, tuple(counter.ahead))
