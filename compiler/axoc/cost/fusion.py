"""What compilation makes of a block: elementwise operations and reductions that feed one another become one kernel.

torch's inductor fuses what depends on what (torch/_inductor/scheduler.py: can_fuse, by shared reads and by producer and
consumer); matrix products and attention stay the kernels they are. So a group of operations between them reads each tensor
from outside once, and writes what a product takes, what is kept for the backward, and what the block returns. Its backward
reads the gradients of what it wrote and what it kept, and writes the gradients of what it read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from axoc.cost.meter import Meter
from axoc.cost.operations import Operation
from axoc.cost.tape import Size, Value

BARRIERS: Final = frozenset(
    {
        "linear",
        "linear_4bit",
        "linear_float8",
        "attention",
        "unfused",
        "within",
        "scores",
        "weighted_values",
        "grouped",
        "choose",
        "send",
    }
    | {"sum_experts"}
)
"""Kinds that keep their own kernels."""
PARTS: Final = ("part", "slice")
"""Views: what is read of a tensor is as large as they are."""
INLINED: Final = frozenset({"cast", "copy", "scale"})
"""Of one tensor, element by element: inductor makes no tensor of them for a single user that is no product's, but has that
one compute them (torch/_inductor/ir.py, StorageBox: what is pointwise stays unrealized until it is read often or by a kernel
of another kind), however much later it runs."""
NORMS: Final = ("liger_norm", "layer_norm")


@dataclass(eq=False)
class Group:
    """Operations that become one kernel."""

    operations: list[Operation] = field(default_factory=list)
    reads: dict[int, tuple[Value, Size]] = field(default_factory=dict)
    """Values from outside, by identity of their memory, and how much of each."""
    writes: dict[tuple[int, float], tuple[Value, int]] = field(default_factory=dict)
    """Values that are taken outside, and by how many operations."""


def forward_bytes(group: Group) -> Size:
    read = sum((size for _, size in group.reads.values()), 0.0)
    return read + sum((value.size for value, _ in group.writes.values()), 0.0)


def backward_bytes(group: Group, *, trained: bool) -> Size:
    """``trained``: the norms' weights are, whose gradients are sums over all tokens: their inputs are read once more."""
    read: Size = 0.0
    for value, takers in group.writes.values():
        read = read + value.size * max(takers, 1) * value.needs_gradient
    kept = {id(storage): storage.size for op in group.operations for storage in op.saves}
    read = read + sum(kept.values(), 0.0)
    if trained:
        read = read + sum((2.0 * op.inputs[0].size for op in group.operations if op.kind in NORMS), 0.0)
    return read + sum((size for value, size in group.reads.values() if value.needs_gradient), 0.0)


def groups(operations: Sequence[Operation], output: Value) -> list[Group]:
    """Of what is no barrier's, in the order of their first operations. ``output``: what the block returns.

    Operations join where as many barriers, one after the other, lie before both: else one would have to wait for a barrier
    that waits for the other."""
    found: dict[int, Group] = {}
    maker: dict[int, Group] = {}
    depth: dict[int, int] = {}
    uses = Counter(id(value) for op in operations for value in op.inputs)
    saved = {id(storage) for op in operations for storage in op.saves}
    for op in operations:
        if op.output is None:
            continue
        before = max((depth.get(id(value), 0) for value in op.inputs), default=0)
        depth[id(op.output)] = before + (op.kind in BARRIERS)
        if op.kind in BARRIERS:
            continue
        mine = Group()
        for value in op.inputs:
            other = maker.get(id(value))
            if other is None or other is mine:
                continue
            if depth[id(value)] == before or _inlined(other, uses, saved):
                mine = _joined(other, mine, maker, found)
        mine.operations.append(op)
        maker[id(op.output)] = mine
        found[id(mine)] = mine
    takers = _takers(operations, maker)
    for group in found.values():
        _borders(group, takers, saved, output)
    return list(found.values())


def _inlined(group: Group, uses: Counter[int], saved: set[int]) -> bool:
    """Nothing of it is wanted but by the one that takes its last."""
    return all(
        op.kind in INLINED and op.output is not None and uses[id(op.output)] == 1 and id(op.output.storage) not in saved
        for op in group.operations
    )


def _joined(one: Group, other: Group, maker: dict[int, Group], found: dict[int, Group]) -> Group:
    """The second's operations become the first's."""
    for op in other.operations:
        one.operations.append(op)
        maker[id(op.output)] = one
    found.pop(id(other), None)
    return one


def _takers(operations: Iterable[Operation], maker: dict[int, Group]) -> dict[int, int]:
    """How many take each value that are not of its group: barriers, and other groups."""
    found: dict[int, set[int]] = {}
    for op in operations:
        taker = id(op) if op.output is None or op.kind in BARRIERS else id(maker[id(op.output)])
        for value in op.inputs:
            if id(maker.get(id(value))) != taker:
                found.setdefault(id(value), set()).add(taker)
    return {value: len(takers) for value, takers in found.items()}


def _borders(group: Group, takers: dict[int, int], saved: set[int], output: Value) -> None:
    made = {id(op.output) for op in group.operations}
    for op in group.operations:
        for value in op.inputs:
            if id(value) not in made:
                size = op.width * op.bytes * op.tokens if op.kind in PARTS else value.size
                key = id(op) if op.kind in PARTS else id(value.storage)
                group.reads[key] = (value, size)
        assert op.output is not None
        taken = takers.get(id(op.output), 0)
        kept = id(op.output.storage) in saved and op.output.storage.size is op.output.size
        if taken or kept or op.output is output:
            _write(group, op, op.output, taken)


def _write(group: Group, op: Operation, value: Value, taken: int) -> None:
    """The same cast of the same tensor, for several products, is made once."""
    key = (id(op.inputs[0]), value.bytes) if op.kind == "cast" else (id(value), value.bytes)
    _, before = group.writes.get(key, (value, 0))
    group.writes[key] = (value, before + taken)


def fused_forward(m: Meter, operations: Sequence[Operation], output: Value) -> None:
    for group in groups(operations, output):
        m.moved(forward_bytes(group))


def fused_backward(m: Meter, operations: Sequence[Operation], output: Value) -> None:
    """Gradients that several groups send to one tensor are added in the kernel of the later: it reads what is there."""
    sent: set[int] = set()
    for group in reversed(groups(operations, output)):
        wanted = {id(value): value.size for value, _ in group.reads.values() if value.needs_gradient}
        added = sum((size for value, size in wanted.items() if value in sent), 0.0)
        m.moved(backward_bytes(group, trained=m.scenario.is_full) + added)
        sent |= wanted.keys()


def left_alone(operations: Iterable[Operation]) -> list[Operation]:
    """What keeps its own kernels, and work that makes no tensor. Compiled code takes an adapter's layer through no Python."""
    return [op for op in operations if op.kind in BARRIERS or (op.output is None and op.kind != "adapter")]
