"""The kernels that a graph becomes: what Inductor fuses, what of it is written out, and what each of them reads.

Source: torch/_inductor (2.11 to 2.13), ir.py (StorageBox.mark_reuse) and scheduler.py (fuse_nodes, decide_inplace_update).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from axoc.cost.compiled.graph import Node
from axoc.cost.tape import Size

MANY_READS: Final = 4
"""An expression that reads more tensors is written out where it is used again (config.realize_reads_threshold)."""
SMALL: Final = ("statistics", "row", "weight", "mask")
"""Kinds that are written whoever reads them."""
LENT: Final = ("input", "tangent")
"""Kinds that a graph is given and may not write over; what a forward keeps for its backward it may (donated_buffer)."""
MOVES: Final = ("liger_rope", "liger_rope_back", "gather_heads", "gather_heads_back", "repeat", "repeat_back", "join")
"""Kinds that do not read where they write."""


@dataclass(eq=False)
class Kernel:
    """Fused code, or a call of a library."""

    outputs: list[Node]
    inputs: dict[int, Node]
    """Tensors in memory, by their identity, made by other kernels."""
    takes: dict[int, dict[int, bool]]
    """By identity of an output, that of the tensors it is computed from, and whether from other places of them."""
    scratch: Size = 0.0
    fused: bool = False
    alone: bool = False
    depth: int = 0

    def over(self, node: Node, free: Iterable[int]) -> int | None:
        """Which of the ``free`` inputs, read here for the last time, ``node`` is written over: one as large that no other output is
        computed from, but for those that it follows itself (decide_inplace_update)."""
        if not self.fused or node.long:
            return None
        before, dying = self._ancestors(node), set(free)
        for key in self.takes.get(id(node), {}):
            if key not in dying:
                continue
            takers = {output for output, taken in self.takes.items() if key in taken}
            moved = any(self.takes[output][key] for output in takers)
            source = self.inputs[key]
            alike = source.bytes == node.bytes and equal(source.width, node.width)
            alone = id(node) in takers and takers <= before and not moved
            if alike and alone and source.kind not in LENT:
                return key
        return None

    def _ancestors(self, node: Node) -> set[int]:
        found, waiting = {id(node)}, [id(node)]
        while waiting:
            for key in self.takes.get(waiting.pop(), {}):
                if key in self.takes and key not in found:
                    found.add(key)
                    waiting.append(key)
        return found


@dataclass(eq=False)
class Program:
    """Kernels in an order that respects what each of them reads."""

    kernels: list[Kernel]
    given: list[Node]
    """Tensors that are there before and may be freed."""
    results: list[Node]
    """That are there afterwards."""


def equal(one: Size, other: Size) -> bool:
    return one is other or bool(np.all(one == other))


def owner(node: Node) -> Node:
    """Whose memory it is. A view that is wanted in memory has the whole of what it is a view of written (ir.py, as_storage_and_layout)."""
    while node.view:
        node = node.inputs[0]
    return node


def program(nodes: Sequence[Node], given: Sequence[Node], results: Sequence[Node]) -> Program:
    """``nodes``: all that may be needed, each after what it reads. What is ``given`` needs no kernel."""
    memory = _Memory(nodes, given, results)
    made: list[Kernel] = []
    of: dict[int, Kernel] = {}
    for node in nodes:
        if id(node) in memory.known or id(node) not in memory.needed:
            continue
        if node.made_with is not None:
            of[id(node.made_with)].outputs.append(node)
        elif id(node) in memory.written:
            of[id(node)] = memory.kernel(node)
            made.append(of[id(node)])
    return Program(_joined(made), unique(given), unique(results))


def unique(nodes: Iterable[Node]) -> list[Node]:
    """The memory of all of them."""
    return list({id(owner(n)): owner(n) for n in nodes}.values())


class _Memory:
    """Which tensors of a graph are in memory, and how an expression is computed from them."""

    def __init__(self, nodes: Sequence[Node], given: Sequence[Node], results: Sequence[Node]) -> None:
        self.known = {id(owner(n)) for n in given} | {id(n) for n in given}
        self.needed = self._needed(results)
        self.nodes = [n for n in nodes if id(n) in self.needed and id(n) not in self.known]
        self.place = {id(n): number for number, n in enumerate(self.nodes)}
        self.called: dict[int, int] = {}
        """By identity of a tensor, the place of the first library call that reads it."""
        for number, node in enumerate(self.nodes):
            for source in node.inputs if node.extern else ():
                self.called.setdefault(id(owner(source)), number)
        self.at_once = {id(owner(n)) for n in results}
        """Tensors that are written where they are defined: all that follows reads them."""
        self.at_once |= {id(n) for n in self.nodes if n.extern or n.sums_tokens or n.kind in SMALL}
        self._write_long_expressions()
        self.written = self.at_once | self.called.keys()
        self.depth = self._depths()

    def _needed(self, results: Iterable[Node]) -> set[int]:
        found: set[int] = set()
        waiting = list(results)
        while waiting:
            node = waiting.pop()
            if id(node) in found:
                continue
            found.add(id(node))
            if id(node) not in self.known:
                waiting += node.inputs
                waiting += [node.made_with] if node.made_with is not None else []
        return found

    def _write_long_expressions(self) -> None:
        uses: dict[int, int] = {}
        for node in self.nodes:
            for source in node.inputs:
                uses[id(source)] = uses.get(id(source), 0) + 1
        for node in self.nodes:
            if node.fused and uses.get(id(node), 0) > 1 and len(self.reads(node)) + self.tables(node) > MANY_READS:
                self.at_once.add(id(node))

    def _depths(self) -> dict[int, int]:
        """Library calls, one after the other, before each node."""
        found: dict[int, int] = {}
        for node in self.nodes:
            sources = [*node.inputs, *([node.made_with] if node.made_with is not None else [])]
            found[id(node)] = max((found.get(id(s), 0) + self._calls(s) for s in sources), default=0)
        return found

    def _calls(self, node: Node) -> bool:
        return node.extern and id(node) not in self.known

    def _is_there(self, source: Node, reader: Node) -> bool:
        """In memory when ``reader`` is written: else that computes it anew, even if a later library call has it written too."""
        key = id(source)
        if key in self.known or key in self.at_once or source.made_with is not None:
            return True
        return key in self.called and (reader.extern or self.called[key] < self.place[id(reader)])

    def reads(self, node: Node) -> dict[int, tuple[Node, bool]]:
        """Tensors in memory that ``node`` is computed from, and whether from other places than where it is written."""
        found: dict[int, tuple[Node, bool]] = {}
        waiting = [(source, node.kind in MOVES) for source in reversed(node.inputs)]
        while waiting:
            source, moved = waiting.pop()
            mine = owner(source)
            if self._is_there(mine, node):
                before = found.get(id(mine), (mine, False))[1]
                found[id(mine)] = (mine, before or moved or mine is not source)
            elif not source.fixed:
                farther = moved or source.kind in MOVES or source.view
                waiting += [(other, farther) for other in reversed(source.inputs)]
        return found

    def tables(self, node: Node) -> int:
        """That an expression reads beside."""
        found, waiting = 0, list(node.inputs)
        while waiting:
            source = waiting.pop()
            found += source.fixed
            if not self._is_there(owner(source), node):
                waiting += source.inputs
        return found

    def kernel(self, node: Node) -> Kernel:
        taken = self.reads(node)
        return Kernel(
            outputs=[node],
            inputs={key: source for key, (source, _) in taken.items()},
            takes={id(node): {key: moved for key, (_, moved) in taken.items()}},
            scratch=node.scratch,
            fused=not node.extern,
            alone=node.sums_tokens or node.kind == "weight",
            depth=self.depth[id(node)],
        )


def _joined(kernels: list[Kernel]) -> list[Kernel]:
    """Fused code joins what it follows, or what reads the same, if as many library calls lie before both."""
    done: list[Kernel] = []
    for kernel in kernels:
        for other in list(done):
            if _fuses(other, kernel):
                kernel = _union(other, kernel)
                done.remove(other)
        done.append(kernel)
    return _with_sums_over_tokens(done)


def _with_sums_over_tokens(kernels: list[Kernel]) -> list[Kernel]:
    """Norms' weights' gradients are sums over the tokens, in the last kernel that sums over the rows of the same tensor: until
    then what they are computed from is kept (config.triton.mix_order_reduction)."""
    last = next((k for k in reversed(kernels) if any(n.kind == "row" for n in k.outputs)), None)
    if last is None:
        return kernels
    for kernel in [k for k in kernels if k.outputs[0].sums_tokens and k.inputs.keys() & last.inputs.keys()]:
        kernels.remove(kernel)
        place, last = kernels.index(last), replace(_union(last, kernel), depth=last.depth)
        kernels[place] = last
    return kernels


def _fuses(one: Kernel, other: Kernel) -> bool:
    if not (one.fused and other.fused and one.depth == other.depth) or one.alone or other.alone:
        return False
    if {id(n) for n in one.outputs} & other.inputs.keys():
        return True
    alike = any(equal(a.width, b.width) for a in one.outputs for b in other.outputs)
    return alike and bool(one.inputs.keys() & other.inputs.keys())


def _union(one: Kernel, other: Kernel) -> Kernel:
    made = {id(n) for n in one.outputs}
    inputs = one.inputs | {key: node for key, node in other.inputs.items() if key not in made}
    return Kernel(one.outputs + other.outputs, inputs, one.takes | other.takes, 0.0, True, False, one.depth)
