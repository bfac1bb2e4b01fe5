"""The order in which a program's kernels run: of those that Inductor tries, the one with the lowest peak.

Source: torch/_inductor/memory.py (2.11 to 2.13), reorder_for_peak_memory: as written; the node that leaves least
(topological_sort_lpmf); that whose inputs are oldest (bfs); small ones first, each after what it needs (dfs). Where the peak is
alike, it is the second: what is written first comes to a few small tensors more at the top, which are not all counted here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from axoc.cost.compiled.graph import Node
from axoc.cost.compiled.kernels import Program


@dataclass(frozen=True)
class _Work:
    """A program in numbers: bytes at the largest batch, places of kernels in the order as written."""

    program: Program
    made: list[float]
    """Bytes that each kernel writes."""
    before: list[set[int]]
    """Kernels that each reads of."""
    after: list[set[int]]
    reads: list[list[Node]]
    size: dict[int, float]
    readers: dict[int, set[int]]
    held: set[int]
    """Results: never freed."""


def ordered(program: Program) -> Program:
    work = _work(program)
    tried = [_least(work), _as_written(work), _oldest(work), _small(work)]
    best = min(tried, key=lambda order: _peak(work, order))
    return Program([program.kernels[i] for i in best], program.given, program.results)


def bytes_of(node: Node) -> float:
    return float(np.max(node.size, initial=0.0))


def _work(program: Program) -> _Work:
    kernels = program.kernels
    maker = {id(n): place for place, k in enumerate(kernels) for n in k.outputs}
    reads = [[n for n in k.inputs.values() if not n.fixed] for k in kernels]
    before = [{maker[id(n)] for n in found if id(n) in maker} - {i} for i, found in enumerate(reads)]
    after: list[set[int]] = [set() for _ in kernels]
    for place, found in enumerate(before):
        for other in found:
            after[other].add(place)
    every = [*program.given, *(n for k in kernels for n in k.outputs)]
    readers: dict[int, set[int]] = {id(n): set() for n in every}
    for place, taken in enumerate(reads):
        for node in taken:
            readers.setdefault(id(node), set()).add(place)
    return _Work(
        program=program,
        made=[sum(bytes_of(n) for n in k.outputs) for k in kernels],
        before=before,
        after=after,
        reads=reads,
        size={id(n): bytes_of(n) for n in every},
        readers=readers,
        held={id(n) for n in program.results},
    )


def _peak(work: _Work, order: Sequence[int]) -> float:
    left = {key: set(found) for key, found in work.readers.items()}
    live = sum(work.size[id(n)] for n in work.program.given)
    top = live
    for place in order:
        live += work.made[place]
        top = max(top, live)
        live -= _freed(work, left, place)
    return top


def _freed(work: _Work, left: dict[int, set[int]], place: int) -> float:
    freed = 0.0
    for node in (*work.reads[place], *work.program.kernels[place].outputs):
        waiting = left[id(node)]
        if place in waiting:
            waiting.discard(place)
        if not waiting and id(node) not in work.held and id(node) in work.size:
            freed += work.size[id(node)]
    return freed


def _walk(work: _Work, choose: Callable[[list[int]], int], done: Callable[[int], None]) -> list[int]:
    missing = [len(found) for found in work.before]
    ready = [i for i, count in enumerate(missing) if not count]
    order: list[int] = []
    while ready:
        place = choose(ready)
        ready.remove(place)
        order.append(place)
        done(place)
        for other in sorted(work.after[place]):
            missing[other] -= 1
            if not missing[other]:
                ready.append(other)
    return order


def _least(work: _Work) -> list[int]:
    left = {key: set(found) for key, found in work.readers.items()}
    state = {"live": sum(work.size[id(n)] for n in work.program.given)}
    state["top"] = max(state["live"], sum(work.size.get(key, 0.0) for key in work.held))

    def would_free(place: int) -> float:
        mine = (*work.reads[place], *work.program.kernels[place].outputs)
        return sum(work.size.get(id(n), 0.0) for n in mine if left[id(n)] <= {place} and id(n) not in work.held)

    def choose(ready: list[int]) -> int:
        gap = state["top"] - state["live"]

        def key(i: int) -> tuple[float, float, int]:
            made = work.made[i]
            return (made if made > gap else 0.0, made - would_free(i), i)

        return min(ready, key=key)

    def done(place: int) -> None:
        state["live"] += work.made[place]
        state["top"] = max(state["top"], state["live"])
        state["live"] -= _freed(work, left, place)

    return _walk(work, choose, done)


def _oldest(work: _Work) -> list[int]:
    at: dict[int, int] = {}

    def key(i: int) -> tuple[list[int], int]:
        return sorted(at[b] for b in work.before[i]), i

    return _walk(work, lambda ready: min(ready, key=key), lambda place: at.update({place: len(at)}))


def _as_written(work: _Work) -> list[int]:
    return _visited(work, lambda place: float(place))


def _small(work: _Work) -> list[int]:
    whole = [made + sum(work.size.get(id(n), 0.0) for n in work.reads[i]) for i, made in enumerate(work.made)]
    return _visited(work, lambda place: whole[place])


def _visited(work: _Work, rank: Callable[[int], float]) -> list[int]:
    """One after the other by ``rank``, each after all that it needs."""
    order: list[int] = []
    seen: set[int] = set()

    def visit(place: int) -> None:
        if place in seen:
            return
        seen.add(place)
        for other in sorted(work.before[place], key=lambda i: (rank(i), i)):
            visit(other)
        order.append(place)

    for place in sorted(range(len(work.made)), key=lambda i: (rank(i), i)):
        visit(place)
    return order
