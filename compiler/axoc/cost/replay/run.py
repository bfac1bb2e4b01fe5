"""Two optimizer steps and an evaluation of one candidate, tensor by tensor, on the programs that the closed form counts.

In the first step the optimizer's states are born among the gradients; in the second they are there from the start, and
what the first one's gradients leave free is in pieces that large tensors do not fit: the peak of reserved memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Final

from axoc.cost import flops, head, states
from axoc.cost.activations import setting
from axoc.cost.adafactor import FP32, copies_of_a_matrix, trained_matrices
from axoc.cost.blocks import Kind, block, compiled_block, compiles
from axoc.cost.columns import Columns
from axoc.cost.compiled.block import Compiled
from axoc.cost.compiled.block import forward as compiled_forward
from axoc.cost.layers import Setting, norm
from axoc.cost.ledger import BLAS_HANDLES, ledgers, workspace_bytes
from axoc.cost.replay.allocator import LARGE_PAGE_BYTES, Allocator
from axoc.cost.replay.conditions import PLANNED, STEPS, Conditions, Loading, Replayed
from axoc.cost.replay.heap import Heap
from axoc.cost.replay.order import blocks_in_order, sub_groups, trained_elements
from axoc.cost.replay.recorder import Call, Program, Recorder, again
from axoc.cost.replay.shares import Shares
from axoc.cost.replay.streams import other_pools
from axoc.cost.replay.units import Units
from axoc.cost.scenario import Scenario
from axoc.cost.tape import Storage, Tape, Value

MICRO_STEPS: Final = 2
"""Of a step from the second on: the first makes the gradients, all others add to them. Those of the first step leave nothing
behind that its first one does not."""


def replay(scenario: Scenario, c: Columns, conditions: Conditions = PLANNED) -> Replayed:
    """``c``: one candidate. What FSDP2 gathers and reduces, and ZeRO-1 and 2 reduce, is replayed; what ZeRO-3 does is taken to lie
    in a block of each stream, as large as the closed form's peak is above the replayed one. So is a reference model, which is
    there from the start, and what its passes hold."""
    allocator = Allocator(conditions.limit_bytes)
    run = Run(scenario, c, allocator, loading=conditions.loading)
    run.optimizer_step(1)
    for number in range(1, conditions.steps):
        if number < STEPS or allocator.retries:
            run.optimizer_step(MICRO_STEPS)
    if scenario.evaluates:
        run.evaluate()
    beside = _collectives(scenario, c, allocator.peak_allocated)
    apart = other_pools(scenario, c, beside)
    pages = sum(-(-round(size) // LARGE_PAGE_BYTES) * LARGE_PAGE_BYTES for size in apart)
    return Replayed(
        peak_allocated_bytes=allocator.peak_allocated + beside,
        peak_reserved_bytes=allocator.peak_reserved + pages,
        retries=allocator.retries,
    )


def resident_bytes(scenario: Scenario, c: Columns) -> int:
    """Of one CPU rank's tensors, and what the C library keeps beside them: at the most in a step once states are there, or in an
    evaluation. The runtime gives what is free back before each micro-step (callbacks/trim.py)."""
    heap = Heap()
    run = Run(scenario, c, heap, begins=heap.begin)
    for number in range(STEPS):
        run.optimizer_step(MICRO_STEPS if number == STEPS - 1 else 1)
    peak = heap.peak_resident
    if scenario.evaluates:
        heap.begin()
        run.evaluate()
    return max(peak, heap.peak_resident) + _collectives(scenario, c, heap.peak_allocated)


def _collectives(scenario: Scenario, c: Columns, replayed_bytes: int) -> int:
    if not bool(c.uses("zero1", "zero2", "zero3", "fsdp")[0]) and not scenario.objective.passes:
        return 0
    peak = max(sum(float(item[0]) for item in ledger.values()) for ledger in ledgers(scenario, c).values())
    return max(0, round(peak) - replayed_bytes)


class Run:
    """A candidate's run in progress."""

    def __init__(
        self,
        scenario: Scenario,
        c: Columns,
        allocator: Allocator | Heap,
        begins: Callable[[], None] | None = None,
        loading: Loading | None = None,
    ) -> None:
        """``begins``: called before each micro-step. ``loading``: as in Conditions."""
        self.scenario, self.columns, self.begins = scenario, c, begins
        self.tape = Recorder(float(flops.tokens(scenario, c)[0]), allocator)
        self.first, self.more = settings(scenario, c)
        self.kinds = tuple(blocks_in_order(scenario))
        self.compiled = {
            id(s): {kind: compiled_block(s, self.tape.tokens, kind) for kind in set(self.kinds)}
            for s in (self.first, self.more)
            if compiles(s)
        }
        programs = {kind: self._program(self.first, kind) for kind in set(self.kinds)}
        width = scenario.model.hidden_size
        tokens = float(flops.tokens(scenario, c)[0])
        self.again = {
            kind: again(program, tokens, width, self.first.stream, not kind.first) for kind, program in programs.items()
        }
        self.states: list[Storage] = []
        self.waiting: list[Storage] = []
        self.units = Units(self.tape, scenario, c)
        self.shares = Shares(self.tape, scenario, c)
        self._load(loading)

    def _program(self, s: Setting, kind: Kind) -> Program:
        made = self.compiled.get(id(s))
        return partial(_block, s, kind) if made is None else partial(_compiled, made[kind])

    def _load(self, loading: Loading | None) -> None:
        """Weights, and what is there before the first step."""
        t, scenario, c = self.tape, self.scenario, self.columns
        workspace = float(workspace_bytes(scenario) // BLAS_HANDLES)
        weights = float(states.weights(scenario, c)[0])
        if loading is not None:
            loading(t, weights)
            t.allocator.reset_peaks()
        elif scenario.quantized:
            self._raise_what_is_not_quantized(weights)
        else:
            t.allocate(weights)
        self.masters = self._make_masters()
        t.allocate(float(states.buffers(scenario, c)[0]))
        if bool(states.held_from_start(c)[0]):
            t.allocate(float(states.gradients(scenario, c)[0]))
        t.allocate(workspace)
        t.workspaces.append(workspace)

    def _make_masters(self) -> list[Storage]:
        """DeepSpeed's, with what comes and goes meanwhile and leaves room behind. ZeRO-3 converts a sub-group, whose conversion
        stays until the next one's, and clones that; what ZeRO-1 and 2 make on the way they give back (empty_cache). Then
        zeros as large as the largest (stage_1_and_2.py, stage3.py: initialize_optimizer_states)."""
        t, c, made = self.tape, self.columns, list[Storage]()
        three, converted = bool(c.uses("zero3")[0]), t.allocate(0.0)
        for elements in sub_groups(self.scenario, c):
            before, converted = converted, t.allocate(FP32 * elements if three else 0.0)
            t.release(before)
            made.append(t.allocate(FP32 * elements))
        t.release(converted)
        t.release(t.allocate(max((m.size for m in made), default=0.0)))
        return made

    def _raise_what_is_not_quantized(self, resident: float) -> None:
        """Embedding and head come in the file's dtype; preparing for k-bit training copies them to fp32, and leaves their
        places free (peft/utils/other.py, prepare_model_for_kbit_training)."""
        t, sizes = self.tape, self.scenario.sizes
        matrices = [float(n) for n in (sizes.embedding, sizes.lm_head) if n]
        low = [t.allocate(n * self.scenario.weight_bytes) for n in matrices[:1]]
        t.allocate(resident - FP32 * sum(matrices))
        low += [t.allocate(n * self.scenario.weight_bytes) for n in matrices[1:]]
        for elements, storage in zip(matrices, low, strict=True):
            t.allocate(FP32 * elements)
            t.release(storage)

    def optimizer_step(self, micro_steps: int) -> None:
        count = min(micro_steps, int(self.columns.accumulation[0]))
        for number in range(count):
            if self.begins is not None:
                self.begins()
            self._micro_step(self.first if number == 0 else self.more, first=number == 0)
            self.shares.finish(first=number == 0, last=number == count - 1)
        self._update()
        self.tape.zero_gradients()

    def evaluate(self) -> None:
        """One batch: the next one finds what it needs free."""
        t, s = self.tape, self.first
        t.records = False
        value = self._embedded(s)
        for number, kind in enumerate(self.kinds):
            self.units.begin(number)
            value = _next(t, value, self._program(s, kind)(t, value))
            self.units.end(number, number == len(self.kinds) - 1)
        t.drop(self._loss(s, value))
        t.end_autocast()
        t.release(self.outside)

    def _micro_step(self, s: Setting, *, first: bool) -> None:
        t, checkpointed = self.tape, int(self.columns.checkpointed_layers[0])
        self.units.first = first
        embedded = self._embedded(s)
        value = embedded
        for number, kind in enumerate(self.kinds):
            program = self._program(s, kind)
            recomputed = number < checkpointed
            self.units.begin(number)
            result = t.checkpointed(program, value, self.again[kind]) if recomputed else program(t, value)
            value = _next(t, value, result)
            self.units.end(number, number == len(self.kinds) - 1)
        loss = self._loss(s, value)
        t.end_autocast()
        t.drop(loss)
        before = len(t.gradients)
        t.backward(loss, t.allocate(4.0))
        self._embedding_gradient(embedded, self._waited(before), first=first)
        if self.units.tied or not t.reduces:
            t.release(self.outside)
        if t.reduces:
            self.units.finish()

    def _embedded(self, s: Setting) -> Value:
        """A tied matrix is gathered for all of the pass, another embedding for the lookup."""
        t, units = self.tape, self.units
        weight = units.gather(units.resident if units.tied else units.embedding)
        value = t.value(self.scenario.model.hidden_size, s.stream, t.records and self.scenario.trains_embedding)
        self.outside = weight
        if not units.tied:
            t.release(weight)
        return value

    def _loss(self, s: Setting, value: Value) -> Value:
        """An untied head is gathered until its gradient is there."""
        t, units = self.tape, self.units
        if not units.tied:
            self.outside = units.gather(units.resident)
        if t.records and t.reduces:
            t.nodes.append(Call(self._ended_head))  # type: ignore[arg-type]
        loss = _finished(t, s, value)
        units.flush()
        return loss

    def _waited(self, before: int) -> Storage | None:
        """The head's gradient, where it is the embedding's too: it is the optimizer's no more until the two are one.
        ``before``: how many gradients there were before this backward."""
        t = self.tape
        if t.hands_over and self.shares.waiting is not None:
            return self.shares.taken()
        made = self.waiting if t.reduces else t.gradients[before:]
        if not (self.scenario.trains_head and self.units.tied and made):
            return None
        if t.reduces:
            t.unreduced += self.waiting[1:]
            self.waiting = []
        else:
            t.gradients.remove(made[0])
        return made[0]

    def _ended_head(self) -> None:
        """A tied matrix' gradient waits for the lookup's."""
        if self.units.tied:
            self.waiting, self.tape.unreduced = self.tape.unreduced, []
            return
        self.tape.release(self.outside)
        self.units.reduce()

    def _embedding_gradient(self, embedded: Value, waiting: Storage | None, *, first: bool) -> None:
        """Of the lookup. A tied matrix' is added to the head's, which has waited: in a third tensor where that is a view
        of a product's result, transposed, and not a copy in another dtype."""
        t, scenario = self.tape, self.scenario
        if embedded.gradient is None:
            return
        element = float(states.gradient_element_bytes(scenario, self.columns)[0])
        made = t.allocate(scenario.sizes.embedding * element)
        t.release(embedded.gradient)
        if waiting is not None:
            apart = not scenario.fused_loss and element == scenario.compute_bytes
            total = t.allocate(made.size) if apart else t.again_stored(waiting)
            t.release(made)
            t.release(waiting)
            made = total
        if t.reduces:
            t.unreduced.append(made)
        elif t.hands_over:
            self.shares.take(made)
        elif first:
            t.gradients.append(made)
        else:
            t.release(made)

    def _update(self) -> None:
        """States are made when the optimizer first steps; foreach needs a copy of everything, Adafactor of a matrix."""
        t = self.tape
        if self.masters:
            self._update_masters()
            return
        if not self.states:
            self.states += [t.allocate(size) for size in self._state_sizes()]
        if self.scenario.optimizer == "adamw_torch":
            copies = [t.allocate(n * self.first.gradient_bytes) for n in trained_elements(self.scenario)]
            for copy in copies:
                t.release(copy)
        if self.scenario.optimizer == "adafactor":
            self._adafactor()

    def _update_masters(self) -> None:
        """DeepSpeed: group by group the gradients in one flat tensor, a copy of it in fp32, and in the first step the
        states, which find their place among what the step before has left free (stage3.py, step)."""
        t, scenario = self.tape, self.scenario
        self.shares.norms()
        whole = float(states.optimizer(scenario, self.columns)[0]) / sum(m.size for m in self.masters) - 1.0
        parts, born = (2 if scenario.optimizer.startswith("adamw") else 1), not self.states
        for master in self.masters:
            flat = t.allocate(master.size / FP32 * states.module_bytes(scenario))
            single = t.allocate(master.size)
            t.release(flat)
            if born:
                self.states += [t.allocate(master.size * whole / parts) for _ in range(parts)]
            t.release(single)

    def _adafactor(self) -> None:
        """Of each matrix fp32 tensors as large as it, while the last update of the one before is still there."""
        t = self.tape
        update = t.allocate(0.0)
        for elements in trained_matrices(self.scenario):
            made = [t.allocate(FP32 * elements) for _ in range(copies_of_a_matrix(self.scenario))]
            t.release(update)
            update = made.pop()
            for storage in made:
                t.release(storage)
        t.release(update)

    def _state_sizes(self) -> Iterator[float]:
        """Bytes of the optimizer's states, tensor by tensor."""
        extra = states.embedding_states_bytes(self.scenario)
        whole = float(states.optimizer(self.scenario, self.columns)[0]) - extra
        parts = 2 if self.scenario.optimizer.startswith("adamw") else 1
        for number, elements in enumerate(trained_elements(self.scenario)):
            size = elements / max(1, self.scenario.trainable) * whole + (extra if number == 0 else 0.0)
            yield from [size / parts] * parts


def settings(scenario: Scenario, c: Columns) -> tuple[Setting, Setting]:
    """Of a step's first micro-step, whose gradients stay, and of those that add to them. Sizes are numbers."""
    found = setting(scenario, c)
    share = float(states.gradients(scenario, c)[0]) / max(1.0, states.trained_bytes(scenario))
    held = bool(states.held_from_start(c)[0])
    more = replace(found, tensor_parallel=float(found.tensor_parallel[0]), gradient_bytes=0.0)  # type: ignore[arg-type]
    return replace(more, gradient_bytes=0.0 if held else share * scenario.trainable_bytes), more  # type: ignore[arg-type]


def _block(s: Setting, kind: Kind, t: Tape, value: Value) -> Value:
    return block(t, s, value, kind)


def _compiled(made: Compiled, t: Tape, value: Value) -> Value:
    return compiled_forward(t, made, value)


def _next(t: Tape, value: Value, result: Value) -> Value:
    t.drop(value)
    return result


def _finished(t: Tape, s: Setting, hidden: Value) -> Value:
    """Final norm, head and loss. Consumes the last block's output."""
    s = s.outside
    normal = norm(t, s, hidden) if s.scenario.model.final_norm else t.again(hidden)
    t.drop(hidden)
    loss = head.LOSSES[s.scenario.objective.loss](t, s, normal)
    t.drop(normal)
    return loss
