"""What ZeRO-3 has gathered at the moments that matter: its fetches, prefetches and releases, module by module.

Source: deepspeed 0.19.8, runtime/zero/partitioned_param_coordinator.py (fetch_sub_module, release_sub_module, reset_step) and
parameter_offload.py. The runtime's trace (trace/zero_fetch.py) does the same with the real modules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from axoc.cost.buckets import GATHER_ELEMENTS, LIVE_ELEMENTS

Module = tuple[int, ...]
"""Elements of each parameter."""


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Elements, flat outputs of gathers on their way counted, at the most while a module of that kind runs. A ``_top`` is while one
    is fetched, before it runs: several weights come in a flat output, and are there twice while they are copied out of it."""

    forward: int
    """In the last block's forward."""
    forward_top: int
    head: int
    loss: int
    """When the head's backward begins."""
    after_loss: int
    """When it is over."""
    first: int
    """In the last block's backward."""
    first_top: int
    bottom: int
    """In the first block's backward."""
    bottom_top: int
    embedding: int
    """When all blocks' backward is over."""
    evaluated: int
    """At the head, in an evaluation's second batch."""
    evaluated_inside: int
    """In whichever block has most then."""
    evaluated_top: int


@dataclass(eq=False)
class _Part:
    elements: int
    external: bool = False
    viewed: bool = False
    """What autograd saves of it is a view, which holds it when it is let go of: activations count it."""
    here: bool = False
    counted: bool = False
    flight: _Flight | None = None
    users: set[int] = field(default_factory=set)
    fetched_for: int = -1


@dataclass(eq=False)
class _Flight:
    parts: list[_Part]


class _Coordinator:
    def __init__(self, modules: list[list[_Part]]) -> None:
        self.modules = modules
        self.every = {id(p): p for module in modules for p in module}.values()
        self.order: list[int] = []
        self.following = self.saves = False
        self.live = self.top = 0
        self.begin()

    def begin(self) -> None:
        """reset_step"""
        for part in self.every:
            if part.flight is not None:
                self._arrive(part)
                self._let_go(part)
            part.fetched_for = -1
        self.step = self.counted = 0
        self.queue = (
            deque((part, i) for i, m in enumerate(self.order) for part in self.modules[m])
            if self.following
            else deque()
        )

    def fetch(self, number: int) -> int:
        """What is there then; ``top``: the most meanwhile."""
        if not self.following:
            self.order.append(number)
        self.top, parts = self.live, self.modules[number]
        self._gather([p for p in parts if not p.here and p.flight is None])
        for part in parts:
            part.users.add(number)
            self._arrive(part)
        if self.saves:
            self._leave_to_autograd(parts)
        if self.following:
            self._forget(parts)
            self._prefetch()
        self.step += 1
        return self.live

    def _leave_to_autograd(self, parts: list[_Part]) -> None:
        """Once their module runs, however they came; the activations that stand beside ``top`` have them already."""
        for part in parts:
            if part.viewed and part.counted:
                part.counted = False
                self.live -= part.elements
                self.top -= part.elements

    def _forget(self, parts: list[_Part]) -> None:
        awaited = {id(p) for p in parts if p.fetched_for < self.step}
        while self.queue and awaited:
            part, at = self.queue.popleft()
            part.fetched_for = at
            awaited.discard(id(part))

    def _prefetch(self) -> None:
        most, chosen, numbers = min(LIVE_ELEMENTS - self.counted, GATHER_ELEMENTS), list[_Part](), 0
        while self.queue and numbers < most:
            part, at = self.queue.popleft()
            part.fetched_for = max(part.fetched_for, at)
            if not part.here and part.flight is None and part not in chosen:
                chosen.append(part)
                numbers += part.elements
        self._gather(chosen)

    def _gather(self, parts: list[_Part]) -> None:
        """Several come in one flat tensor, and are copied out of it when they are waited for."""
        size = sum(p.elements for p in parts)
        self.counted += size
        self._add(size)
        flight = _Flight(parts) if len(parts) > 1 else None
        for part in parts:
            part.here, part.flight, part.counted = flight is None, flight, True

    def _arrive(self, part: _Part) -> None:
        if part.flight is None:
            return
        parts = part.flight.parts
        for one in parts:
            one.here, one.flight = True, None
        self._add(sum(p.elements for p in parts))
        self.live -= sum(p.elements for p in parts)  # the flat one

    def _add(self, size: int) -> None:
        self.live += size
        self.top = max(self.top, self.live)

    def release(self, number: int) -> None:
        parts = self.modules[number]
        going = self._going(parts)
        for part in parts:
            part.users.discard(number)
            if id(part) in going and not part.external:
                self._let_go(part)

    def _going(self, parts: list[_Part]) -> set[int]:
        if not self.following:
            return {id(p) for p in parts}
        going = {id(p) for p in parts if p.fetched_for <= self.step}
        passed = 0
        for later in self.order[self.step :]:
            if passed >= LIVE_ELEMENTS or not going:
                break
            going -= {id(p) for p in self.modules[later]}
            passed += sum(p.elements for p in self.modules[later])
        return going

    def _let_go(self, part: _Part) -> None:
        if part.here and not part.users:
            part.here = False
            self.live -= part.elements if part.counted else 0
            self.counted -= part.elements

    def let_all_go(self) -> None:
        """release_and_reset_all: before the optimizer's step."""
        for part in self.every:
            self._arrive(part)
            part.users.clear()
            self._let_go(part)


@lru_cache(maxsize=256)
def gathered(
    blocks: tuple[tuple[Module, ...], ...],
    embedding: int,
    head: int,
    *,
    tied: bool,
    external: bool,
    carries: bool,
    trained: bool,
    saves: bool,
    recomputed: int = 0,
) -> Gathered:
    """``blocks``: the modules of each in the order they run; what is small enough to stay gathered is left out. ``external``:
    the head is read outside its module (Liger's loss), and stays until the step. ``carries``: gradients are accumulated, so that a
    forward finds what the backward before it has left. ``trained``: the embedding is, else it has no backward. ``saves``: nothing
    is checkpointed, and experts' weights stay with what autograd saves. ``recomputed``: of the first so many blocks the modules run
    once more before their backward."""
    first = _Part(embedding, external=tied and external)
    last = first if tied else _Part(head, external=external)
    inner = [[_Part(n, viewed=len(module) > 1) for n in module] for block in blocks for module in block]
    modules = [[first], *inner, [last]]
    run = _Coordinator(modules)
    inside, begin = [], 1
    for block in blocks:
        inside.append(range(begin, begin + len(block)))
        begin += len(block)
    again = [number < recomputed for number in range(len(blocks))]
    recorded = found = _step(run, inside, again, external, trained, saves)
    run.let_all_go()
    run.following = True
    for number in range(2 if carries else 1):
        run.begin()
        found = _step(run, inside, again, external, trained, saves)
        if not (carries and number == 0):
            run.let_all_go()
    found = {name: max(value, recorded[name]) for name, value in found.items()}
    for _ in range(2):
        run.begin()
        forwards, at_head = _forward(run, inside, external)
    most, fetching = max(runs for runs, _ in forwards), max(fetches for _, fetches in forwards)
    return Gathered(**found, evaluated=at_head, evaluated_inside=most, evaluated_top=fetching)


def _forward(run: _Coordinator, inside: list[range], external: bool) -> tuple[list[tuple[int, int]], int]:
    """((in a block, while it fetches) of each, at the head)."""
    head = len(run.modules) - 1
    if external:
        run.fetch(head)  # of the model as a whole, which it is made one of
    run.fetch(0)
    run.release(0)
    blocks = [_through(run, block) for block in inside]
    at_head = run.live if external else run.fetch(head)
    run.release(head)
    return blocks, at_head


def _through(run: _Coordinator, modules: Iterable[int]) -> tuple[int, int]:
    """(at the most while one of them runs, while one is fetched)."""
    runs = fetches = 0
    for module in modules:
        runs = max(runs, run.fetch(module))
        fetches = max(fetches, run.top)
        run.release(module)
    return runs, fetches


def _step(
    run: _Coordinator, inside: list[range], again: list[bool], external: bool, trained: bool, saves: bool
) -> dict[str, int]:
    run.saves = saves
    forwards, at_head = _forward(run, inside, external)
    run.saves = False
    head, loss = len(run.modules) - 1, run.live
    if not external:  # of a model that returns no tensor DeepSpeed sees no backward
        loss = run.fetch(head)
        run.release(head)
    after_loss = run.live
    passes = [
        [*block, *reversed(block)] if twice else [*reversed(block)] for block, twice in zip(inside, again, strict=True)
    ]
    blocks = [_through(run, modules) for modules in reversed(passes)]
    embedding = run.live
    if trained:
        embedding = run.fetch(0)
        run.release(0)
    return {
        "forward": forwards[-1][0],
        "forward_top": forwards[-1][1],
        "head": at_head,
        "loss": loss,
        "after_loss": after_loss,
        "first": blocks[0][0],
        "first_top": blocks[0][1],
        "bottom": blocks[-1][0],
        "bottom_top": blocks[-1][1],
        "embedding": embedding,
    }
