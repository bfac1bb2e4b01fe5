"""One compiled block: its programs, and what it keeps and holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from axoc.cost.columns import Floats
from axoc.cost.compiled.buffers import Laid, laid
from axoc.cost.compiled.cut import kept
from axoc.cost.compiled.gradients import Backward, backward
from axoc.cost.compiled.graph import Graph, Node, graph
from axoc.cost.compiled.kernels import program, unique
from axoc.cost.compiled.order import ordered
from axoc.cost.compiled.run import Places, run
from axoc.cost.operations import Operation
from axoc.cost.tape import Parameter, Size, Tape, Value


@dataclass(frozen=True)
class Compiled:
    """The three programs of a block, for some numbers of tokens."""

    graph: Graph
    kept: list[Node]
    """Memory that the backward finds."""
    forward: Laid
    light: Laid
    """Where nothing is kept."""
    backward: Laid
    gradients: Backward

    @property
    def copies(self) -> Size:
        """Bytes of weights' copies among what is kept."""
        return sum((n.size for n in self.kept if n.kind == "weight"), 0.0)

    @property
    def keeps_entered(self) -> bool:
        return any(n is self.graph.entered for n in self.kept)


def compiled(
    operations: Sequence[Operation],
    entered: Value,
    output: Value,
    tokens: Floats,
    *,
    trains_norms: bool,
    activation: str,
) -> Compiled:
    made = graph(operations, entered, output, tokens)
    back = backward(made, operations, entered, trains_norms=trains_norms, activation=activation)
    saved = kept(made.nodes, made.entered, back.nodes)
    forward = program(made.nodes, [made.entered], [made.output, *saved])
    light = program(made.nodes, [made.entered], [made.output])
    ends = [node for node, _ in back.parameters] + [n for n in back.nodes if n.sums_tokens]
    ends += [back.entered] if back.entered is not None else []
    backwards = program([*made.nodes, *back.nodes], [*saved, back.tangent], ends)
    return Compiled(
        graph=made,
        kept=unique(saved),
        forward=laid(ordered(forward), [made.entered]),
        light=laid(ordered(light), [made.entered]),
        backward=laid(ordered(backwards)),
        gradients=back,
    )


@dataclass(frozen=True)
class Step:
    """A compiled block's backward on a tape."""

    block: Compiled
    entered: Value
    output: Value
    places: Places

    def run(self, t: Tape) -> None:
        gradient, block = self.output.gradient, self.block
        assert gradient is not None
        self.output.gradient = None
        places = dict(self.places)
        places[id(block.gradients.tangent)] = gradient
        run(t, block.backward.lines, places)
        if block.gradients.entered is not None:
            self.entered.gradient = places.pop(id(block.gradients.entered))
        for node, parameter in block.gradients.parameters:
            t._keep(_whole(node, parameter), places[id(node)])


def _whole(node: Node, parameter: Parameter) -> Parameter:
    """As the graph returns it: in the weight's dtype."""
    return replace(parameter, computed=node.size, cast=False)


def forward(t: Tape, block: Compiled, entered: Value) -> Value:
    """On a tape, from the block's input, which the caller holds, to its output."""
    made, source = block.graph, block.graph.entered
    places: Places = {id(source): entered.storage}
    run(t, (block.forward if t.records or t.drops else block.light).lines, places)
    storage = places.pop(id(made.output))
    result = Value(storage, made.output.size, made.output.width, made.output.bytes, needs_gradient=True)
    if t.records:
        if block.keeps_entered:
            entered.storage.references += 1
        held = {key: place for key, place in places.items() if key != id(source) or block.keeps_entered}
        if any(n is made.output for n in block.kept):
            storage.references += 1
            held[id(made.output)] = storage
        t.nodes.append(Step(block, entered, result, held))  # type: ignore[arg-type]
    elif t.drops:
        for key, place in places.items():
            if key != id(source):
                t.release(place)
    return result
