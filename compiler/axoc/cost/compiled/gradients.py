"""The backward of a block's graph: the nodes that autograd's formulas add to it (torch/csrc/autograd, derivatives.yaml)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from axoc.cost import float8
from axoc.cost.compiled.graph import FLOAT8, FLOAT8_BYTES, FP32, IDENTITIES, TABLE, Graph, Node, in_float8, named_saves
from axoc.cost.fusion import BARRIERS, NORMS
from axoc.cost.operations import Operation
from axoc.cost.tape import Parameter, Value


@dataclass(eq=False)
class Backward:
    """Nodes in the order they are written, and what comes of them."""

    tangent: Node
    """The gradient that it begins with."""
    trains_norms: bool
    activation: str
    nodes: list[Node] = field(default_factory=list)
    parameters: list[tuple[Node, Parameter]] = field(default_factory=list)
    entered: Node | None = None
    """The gradient of the block's input, if that is asked for."""
    arrived: dict[int, list[Node]] = field(default_factory=dict)
    """Gradients of a node, by its identity, that are yet to be added."""
    parts: dict[int, list[Node]] = field(default_factory=dict)
    """Those of its parts."""

    def add(self, node: Node) -> Node:
        node.backward = True
        self.nodes.append(node)
        return node

    def like(self, kind: str, of: Node, inputs: list[Node], **more: object) -> Node:
        """A fused node that gives a gradient of ``of``."""
        made = Node(kind, of.size, inputs, width=of.width, bytes=of.bytes)
        for name, value in more.items():
            setattr(made, name, value)
        return self.add(made)


def backward(
    graph: Graph, operations: Sequence[Operation], entered: Value, *, trains_norms: bool, activation: str
) -> Backward:
    out = graph.output
    tangent = Node("tangent", out.size, width=out.width, bytes=out.bytes, backward=True)
    found = Backward(tangent, trains_norms, activation)
    found.arrived[id(out)] = [tangent]
    for op in reversed(operations):
        if op.output is None or op.kind in IDENTITIES or not op.output.needs_gradient:
            continue
        node = graph.of[id(op.output)]
        if node in [graph.of[id(v)] for v in op.inputs]:  # a cast that is none
            continue
        gradient = total(found, node)
        if gradient is not None:
            _pass_on(found, graph, op, node, gradient)
    if entered.needs_gradient:
        found.entered = total(found, graph.entered)
    return found


def total(found: Backward, node: Node) -> Node | None:
    """Of a node: the sum of what has arrived, in one kernel."""
    whole, parts = found.arrived.pop(id(node), []), found.parts.pop(id(node), [])
    if parts:
        whole.append(found.like("join", node, parts))
    if len(whole) < 2:
        return whole[0] if whole else None
    return found.like("sum", node, whole)


def _pass_on(found: Backward, graph: Graph, op: Operation, node: Node, gradient: Node) -> None:
    if node.view:
        found.parts.setdefault(id(node.inputs[0]), []).append(gradient)
        return
    rule = _extern if op.kind in BARRIERS else RULES.get(op.kind, _pointwise)
    for value, made in rule(found, graph, op, gradient):
        if value.needs_gradient:
            source = graph.of[id(value)]
            found.arrived.setdefault(id(source), []).append(made)


GELU: Final = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")
Made = Iterator[tuple[Value, Node]]
Rule = Callable[[Backward, Graph, Operation, Node], Made]


def cast(found: Backward, gradient: Node, of: Node) -> Node:
    """In the dtype of what it is the gradient of."""
    if gradient.bytes == of.bytes:
        return gradient
    if gradient.kind == "cast" and gradient.inputs[0].bytes == of.bytes:
        return gradient.inputs[0]
    return found.like("cast", of, [gradient])


def _extern(found: Backward, graph: Graph, op: Operation, gradient: Node) -> Made:
    if op.kind == FLOAT8:
        yield from _float8(found, graph, op, gradient)
    elif op.kind.startswith("linear"):
        yield from _linear(found, graph, op, gradient)
    elif op.kind == "attention":
        yield from _attention(found, graph, op, gradient)
    else:
        yield from _product(found, graph, op, gradient)


def _linear(found: Backward, graph: Graph, op: Operation, gradient: Node) -> Made:
    value, weight = op.inputs[0], graph.beside[id(op)]
    source = graph.of[id(value)]
    for parameter in op.parameters:
        made = Node("weight_gradient", parameter.computed, [gradient, source], extern=True)
        found.add(made)
        if parameter.cast:
            elements = op.sizes[0] * op.sizes[1]
            made = found.add(Node("cast", elements * FP32, [made], bytes=FP32))
        found.parameters.append((made, parameter))
    if value.needs_gradient:
        made = Node("input_gradient", source.size, [gradient, *weight], extern=True, scratch=op.scratch)
        made.width, made.bytes = source.width, source.bytes
        yield value, found.add(made)


def _float8(found: Backward, graph: Graph, op: Operation, gradient: Node) -> Made:
    """Both factors of a product are cast by fused kernels, the input from whatever it can be made again from: no product holds
    on to it. The gradient is cast by columns for the weight's product, and by rows for the input's; the weight beside it."""
    value, weights = op.inputs[0], op.sizes[0] * op.sizes[1]
    source = graph.of[id(value)]
    for parameter in op.parameters:
        factors = [gradient, source]
        if float8.WEIGHT_GRADIENTS:
            factors = [in_float8(factor, found.add) for factor in factors]
        made = found.add(Node("weight_gradient", parameter.computed, factors, extern=True))
        if parameter.cast:
            made = found.add(Node("cast", weights * FP32, [made], bytes=FP32))
        found.parameters.append((made, parameter))
    if value.needs_gradient:
        low = in_float8(gradient, found.add)
        yield value, found.like("input_gradient", source, [low], extern=True, scratch=weights * FLOAT8_BYTES)


def _attention(found: Backward, graph: Graph, op: Operation, gradient: Node) -> Made:
    """One kernel for three gradients."""
    kept = [graph.of[id(v)] for v in named_saves(op)] + graph.beside[id(op)]
    kernel = found.add(Node("attention_back", 0.0, [gradient, *kept], extern=True, scratch=op.scratch))
    for value in op.inputs:
        source = graph.of[id(value)]
        yield value, found.like("beside", source, [kernel], made_with=kernel)


def _product(found: Backward, graph: Graph, op: Operation, gradient: Node) -> Made:
    """Of two activations: one's gradient is the product with the other."""
    kept = graph.beside[id(op)]
    for value in op.inputs:
        if value.needs_gradient:
            others = [graph.of[id(v)] for v in op.inputs if v is not value]
            made = found.like("input_gradient", graph.of[id(value)], [gradient, *others, *kept], extern=True)
            yield value, made


def _add(found: Backward, graph: Graph, op: Operation, gradient: Node) -> Made:
    for value in op.inputs:
        if value.needs_gradient:
            yield value, cast(found, gradient, graph.of[id(value)])


def _same(found: Backward, graph: Graph, op: Operation, gradient: Node) -> Made:
    yield op.inputs[0], cast(found, gradient, graph.of[id(op.inputs[0])])


def _norm(found: Backward, graph: Graph, op: Operation, gradient: Node) -> Made:
    """A row's sum of gradient, weight and input comes first. The weight's own gradient is a sum over the tokens."""
    value = op.inputs[0]
    source, statistics = graph.of[id(value)], graph.statistics[id(op)]
    if found.trains_norms:
        found.add(Node("column", 0.0, [gradient, source, *statistics], sums_tokens=True))
    if value.needs_gradient:
        product = _in_fp32(found, source, [gradient, TABLE])
        row = found.add(Node("row", statistics[0].size, [product, source, *statistics]))
        yield value, found.like("norm_back", source, [product, source, *statistics, row])


def _softmax(found: Backward, graph: Graph, op: Operation, gradient: Node) -> Made:
    """A row's sum of the output and its gradient, whose product is used again."""
    source, statistics = graph.of[id(op.inputs[0])], graph.statistics[id(op)]
    product = _in_fp32(found, source, [gradient, source, *statistics])
    row = found.add(Node("row", statistics[0].size, [product]))
    yield op.inputs[0], found.like("softmax_back", source, [product, source, *statistics, row])


def _in_fp32(found: Backward, source: Node, inputs: list[Node]) -> Node:
    return found.like("weighted", source, inputs, bytes=FP32, size=source.size / source.bytes * FP32)


def _gated(found: Backward, graph: Graph, op: Operation, gradient: Node) -> Made:
    """act(gate) * up: gate's gradient takes both, up's the gate alone."""
    gate, up = (graph.of[id(v)] for v in op.inputs)
    yield op.inputs[1], found.like("gated_back", up, [gradient, gate])
    yield op.inputs[0], found.like("gated_back", gate, [gradient, gate, up], long=_is_long(found, gradient))


def _is_long(found: Backward, gradient: Node) -> bool:
    """The slope of a GELU by tanh, with the tanh and the powers made again, is just within thirty operations: with a sum of
    two gradients before it, it is above."""
    return found.activation in GELU and gradient.kind == "sum"


def _mul(found: Backward, graph: Graph, op: Operation, gradient: Node) -> Made:
    one, other = (graph.of[id(v)] for v in op.inputs)
    yield op.inputs[0], found.like("mul", one, [gradient, other])
    yield op.inputs[1], found.like("mul", other, [gradient, one])


def _pointwise(found: Backward, graph: Graph, op: Operation, gradient: Node) -> Made:
    """With what the operation saves."""
    kept = [graph.of[id(v)] for v in named_saves(op)] + graph.beside[id(op)]
    for value in op.inputs:
        if value.needs_gradient:
            yield value, found.like(op.kind + "_back", graph.of[id(value)], [gradient, *kept])


RULES: Final[dict[str, Rule]] = {
    "add": _add,
    "cast": _same,
    "add_mask": _same,
    "softmax": _softmax,
    "liger_gated": _gated,
    "mul": _mul,
    **dict.fromkeys(NORMS, _norm),
}
