"""A block's operations as the graph that torch.compile makes of them: one node a tensor, casts that cancel left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from axoc.cost.columns import Floats
from axoc.cost.fusion import BARRIERS, NORMS, PARTS
from axoc.cost.operations import Operation
from axoc.cost.tape import Size, Storage, Value

FP32: Final = 4.0
FLOAT8_BYTES: Final = 1.0
FLOAT8: Final = "linear_float8"
"""axoc.cost.float8's kind."""
IDENTITIES: Final = ("copy",)
"""Copies for a kernel's sake, which compiled code has no need of."""
SCORES: Final = ("softmax",)
STATISTICS: Final = {"liger_norm": 1, "layer_norm": 2, "softmax": 2}
"""fp32 figures of a row that a kernel finds first and its backward needs: 1/rms; mean and 1/deviation; largest and sum."""


@dataclass(eq=False)
class Node:
    """A tensor of a graph."""

    kind: str
    size: Size
    """Bytes, where it is made."""
    inputs: list[Node] = field(default_factory=list)
    width: Size = 0.0
    """Elements a token."""
    bytes: float = 0.0
    """Of an element."""
    extern: bool = False
    """Made by a kernel of its own; all else is made by code that Inductor writes, and may be fused."""
    backward: bool = False
    view: bool = False
    scratch: Size = 0.0
    """Beside its output, while an extern kernel runs."""
    made_with: Node | None = None
    """Another output of that one's kernel."""
    fixed: bool = False
    """There before, and after: a weight, or tables."""
    random: bool = False
    long: bool = False
    """Of more operations than Inductor puts into one expression (config.realize_opcount_threshold, 30): it is read from a part
    that is computed before, and so is written over none of what that reads."""
    sums_tokens: bool = False
    """Over all tokens: such a kernel is fused with no other."""

    @property
    def fused(self) -> bool:
        return not (self.extern or self.view or self.fixed or self.made_with is not None)


TABLE: Final = Node("table", 0.0, fixed=True)
"""A norm's weight, or a mask: what a kernel reads beside."""
Casts = dict[tuple[int, float], Node]
"""By identity of what is cast, and bytes of an element."""


@dataclass(eq=False)
class Graph:
    """Of a forward, in the order it is written."""

    entered: Node
    output: Node
    nodes: list[Node]
    of: dict[int, Node]
    """By identity of the program's values."""
    beside: dict[int, list[Node]]
    """What an operation keeps that is no value of the program's, by identity of the operation: log-sum-exps, masks, weights' copies."""
    statistics: dict[int, list[Node]]


def graph(operations: Sequence[Operation], entered: Value, output: Value, tokens: Floats) -> Graph:
    first = Node("input", entered.size, width=entered.width, bytes=entered.bytes)
    made = Graph(first, first, [], {id(entered): first}, {}, {})
    casts: Casts = {}
    for op in operations:
        if op.output is None:
            continue
        if op.kind == "cast":
            made.of[id(op.output)] = _cast(made, casts, made.of[id(op.inputs[0])], op)
        elif op.kind in IDENTITIES:
            made.of[id(op.output)] = made.of[id(op.inputs[0])]
        else:
            _write(made, op, tokens, casts)
    made.output = made.of[id(output)]
    return made


def _cast(made: Graph, casts: Casts, source: Node, op: Operation) -> Node:
    """A cast of a cast is one, and none where it leads back (torch/_inductor/fx_passes/joint_graph.py, pointless_convert;
    post_grad.py, remove_noop_ops); of the same tensor to the same dtype there is one (AOTAutograd's fx_graph_cse)."""
    origin = source.inputs[0] if source.kind == "cast" else source
    if origin.bytes == op.bytes:
        return _returned(made, casts, origin) if source is not origin else origin
    key = (id(origin), op.bytes)
    if key not in casts:
        casts[key] = _node(made, op, [origin])
    return casts[key]


def _returned(made: Graph, casts: Casts, origin: Node) -> Node:
    """The cast that leads back stays, as a copy, where both what it copies and itself are kept: that of an attention's output,
    which keeps it and which an adapter keeps again."""
    if not origin.extern or origin.kind != "attention":
        return origin
    key = (id(origin), origin.bytes)
    if key not in casts:
        casts[key] = Node("copied", origin.size, [origin], width=origin.width, bytes=origin.bytes)
        made.nodes.append(casts[key])
    return casts[key]


def _node(made: Graph, op: Operation, inputs: list[Node]) -> Node:
    assert op.output is not None
    size = op.width * op.bytes * op.tokens
    extern, view = op.kind in BARRIERS, op.kind in PARTS
    node = Node(op.kind, size, inputs, width=op.width, bytes=op.bytes, extern=extern, view=view)
    made.nodes.append(node)
    return node


def in_float8(source: Node, add: Callable[[Node], object]) -> Node:
    """A factor of a product in float8, as a fused kernel casts it."""
    made = Node("cast", source.size / source.bytes * FLOAT8_BYTES, [source], width=source.width, bytes=FLOAT8_BYTES)
    add(made)
    return made


def _write(made: Graph, op: Operation, tokens: Floats, casts: Casts) -> None:
    inputs = [made.of[id(value)] for value in op.inputs]
    if op.kind == FLOAT8:
        key = (id(inputs[0]), FLOAT8_BYTES)
        casts[key] = casts.get(key) or in_float8(inputs[0], made.nodes.append)
        inputs = [casts[key]]
    beside = [_beside(op, storage) for storage in unnamed(op)]
    first = [node for node in beside if node.made_with is None]
    made.nodes += first
    if op.kind in STATISTICS:
        size, count = FP32 * tokens * _rows(op), STATISTICS[op.kind]
        made.statistics[id(op)] = [Node("statistics", size, list(inputs)) for _ in range(count)]
        made.nodes += made.statistics[id(op)]
        inputs = [*inputs, *made.statistics[id(op)]]
    if op.kind == "add_mask":
        inputs = [*inputs, TABLE]
    node = _node(made, op, inputs + first)
    node.scratch = op.sizes[0] * op.sizes[1] * FLOAT8_BYTES if op.kind == FLOAT8 else 0.0
    for other in beside:
        if other not in first:
            other.made_with, other.inputs = node, [node]
            made.nodes.append(other)
    made.beside[id(op)] = beside
    assert op.output is not None
    made.of[id(op.output)] = node


def _rows(op: Operation) -> Size:
    """Rows of a token: one, but for norms of heads and a softmax of each head's scores."""
    return op.sizes[0] if op.kind in (*NORMS, *SCORES) and op.sizes else 1.0


def _beside(op: Operation, storage: Storage) -> Node:
    """A copy of a weight, in its own kernel before; a dropout's mask, in the same; what an extern kernel gives as well."""
    if op.kind.startswith("linear"):
        return Node("weight", storage.size)
    if op.kind == "dropout":
        return Node("mask", storage.size, random=True)
    return Node("beside", storage.size, made_with=PENDING)


PENDING: Final = Node("pending", 0.0)


def unnamed(op: Operation) -> list[Storage]:
    """What an operation saves that is neither of its inputs nor its output."""
    named = {id(v.storage) for v in (*op.inputs, op.output) if v is not None}
    return [s for s in op.saves if id(s) not in named and not (isinstance(s.size, float) and s.size == 0.0)]


def named_saves(op: Operation) -> list[Value]:
    """Inputs and output that an operation saves."""
    values, found = [v for v in (*op.inputs, op.output) if v is not None], []
    for storage in op.saves:
        match = next((v for v in values if v.storage is storage and v not in found), None)
        if match is not None:
            found.append(match)
    return found
