"""Which memory each tensor of a program lies in: made for it, or another one's that is read for the last time or was before.

Source: torch/_inductor (2.11 to 2.13), codegen/wrapper.py: memory_plan_reuse. A tensor as large as one that is no longer needed takes
its memory, the latest one's first, if that one's last kernel was the one before, or if with it kept the program never holds
more than it does at its peak (EfficientPeakEstimate). Until then that memory is not the allocator's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from axoc.cost.compiled.graph import Node
from axoc.cost.compiled.kernels import Kernel, Program, equal
from axoc.cost.compiled.order import bytes_of
from axoc.cost.tape import Size


@dataclass
class Line:
    """A kernel's turn: tensors that it makes, and those that are gone when it has run."""

    made: list[tuple[Node, int | None]] = field(default_factory=list)
    """With the identity of the tensor whose memory it takes; None: its own."""
    gone: list[int] = field(default_factory=list)
    scratch: Size = 0.0
    multiplies: bool = False
    """It is a call of the matrix library."""


@dataclass(eq=False)
class Laid(Program):
    lines: list[Line]


@dataclass
class _Free:
    """Memory of a tensor that nothing reads after ``line``."""

    node: Node
    line: int


def laid(program: Program, others: Iterable[Node] = ()) -> Laid:
    """``others``: given, but held by somebody else."""
    return Laid(program.kernels, program.given, program.results, _lines(program, others))


def _lines(program: Program, others: Iterable[Node]) -> list[Line]:
    last = {key: number for number, kernel in enumerate(program.kernels) for key in kernel.inputs}
    held = {id(n) for n in (*program.results, *others)}
    given = {id(n) for n in program.given}
    live = _live(program, last)
    top, free, found = max(live, default=0.0), list[_Free](), list[Line]()
    for number, kernel in enumerate(program.kernels):
        dying = [key for key in kernel.inputs if last[key] == number and key not in held]
        line = Line(scratch=kernel.scratch, multiplies=any(n.extern and _asks(n) for n in kernel.outputs))
        for node in kernel.outputs:
            over = kernel.over(node, dying)
            if over is not None:
                dying.remove(over)
            elif _asks(node) and (before := _taken(free, live, top, node, number)) is not None:
                over = id(before.node)
                found[before.line].gone.remove(over)
            line.made.append((node, over))
        line.gone = dying + [id(n) for n in kernel.outputs if id(n) not in last and id(n) not in held]
        free += [_Free(_node(kernel, key), number) for key in line.gone if key not in given]
        found.append(line)
    return found


def _node(kernel: Kernel, key: int) -> Node:
    return kernel.inputs.get(key) or next(n for n in kernel.outputs if id(n) == key)


def _asks(node: Node) -> bool:
    """What a library's function returns it has made itself (ir.py, FallbackKernel); products are written where they are told."""
    return node.made_with is None and node.kind not in ("attention", "attention_back")


def _taken(free: list[_Free], live: list[float], top: float, node: Node, number: int) -> _Free | None:
    """The latest of the ``free`` that are as large as ``node`` and of its dtype, if it may be kept until now."""
    size = bytes_of(node)
    place = next((i for i in reversed(range(len(free))) if _alike(free[i].node, node)), None)
    if place is None or size <= 0.0:
        return None
    between = range(free[place].line + 1, number)
    if size + max((live[i] for i in between), default=-size) > top:
        return None
    for i in between:
        live[i] += size
    return free.pop(place)


def _alike(one: Node, other: Node) -> bool:
    return one.bytes == other.bytes and equal(one.size, other.size)


def _live(program: Program, last: dict[int, int]) -> list[float]:
    """Bytes at each kernel, of its outputs beside all that it reads; a graph's own inputs do not count (is_nonfreeable_buffers)."""
    kernels, results = program.kernels, {id(n) for n in program.results}
    change = [0.0] * (len(kernels) + 1)
    born = [(n, 0) for n in program.given if n.kind != "input"]
    born += [(n, number) for number, kernel in enumerate(kernels) for n in kernel.outputs]
    for node, number in born:
        change[number] += bytes_of(node)
        if id(node) not in results:
            change[last.get(id(node), number) + 1] -= bytes_of(node)
    live, found = 0.0, list[float]()
    for more in change[:-1]:
        live += more
        found.append(live)
    return found
