"""A program on a tape: each kernel's outputs are born before it runs, and what it was the last to read dies after it."""

from __future__ import annotations

from collections.abc import Iterable

from axoc.cost.compiled.buffers import Line
from axoc.cost.tape import Storage, Tape

Places = dict[int, Storage]
"""Memory of nodes, by their identity."""


def run(t: Tape, lines: Iterable[Line], places: Places) -> None:
    """``places``: of what is given; of what results, afterwards."""
    for line in lines:
        for node, over in line.made:
            places[id(node)] = t.allocate(node.size) if over is None else places.pop(over)
        t.scratch(line.scratch, multiplies=line.multiplies)
        for key in line.gone:
            t.release(places.pop(key))
