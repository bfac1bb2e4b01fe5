"""What a compiled block keeps for its backward: the least that all else can be made again from, at no kernel's cost.

Source: torch/_functorch/partitioners.py (torch 2.11 to 2.13), solve_min_cut: each tensor of the forward may be kept, at the
price of its bytes, or made again from what is; the cheapest set is a minimum cut. Never made again are products and attention,
what a product of the backward reads (it would have to be written out for it), figures of rows, and what chance decides. What
is read by fused kernels alone counts twice, as it would not be written out else, and a tenth more with each step that
it lies before the backward.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from axoc.cost.compiled.graph import Node

FAR: Final = 100
FARTHER: Final = 1.1
UNWRITTEN: Final = 2.0
ENDLESS: Final = float("inf")


def kept(forward: Sequence[Node], entered: Node, backward: Sequence[Node]) -> list[Node]:
    """Nodes of the forward, ``entered`` among them, that a backward finds."""
    every = [entered, *forward]
    users = _users(every, backward)
    distance = _distances(every, users)
    network = _Network()
    for node in every:
        network.edge(("in", id(node)), ("out", id(node)), _price(node, users, distance[id(node)]))
        if node is entered or not _made_again(node, users):
            network.edge("source", ("in", id(node)), ENDLESS)
        for user in users[id(node)]:
            end: object = "sink" if user.backward else ("in", id(user))
            network.edge(("out", id(node)), end, ENDLESS)
    reached = network.cut("source", "sink")
    return [n for n in every if ("in", id(n)) in reached and ("out", id(n)) not in reached]


def _users(forward: Sequence[Node], backward: Iterable[Node]) -> dict[int, list[Node]]:
    users: dict[int, list[Node]] = {id(node): [] for node in forward}
    for node in (*forward, *backward):
        for source in node.inputs:
            if id(source) in users:
                users[id(source)].append(node)
    return users


def _distances(forward: Sequence[Node], users: dict[int, list[Node]]) -> dict[int, int]:
    """Steps to the backward."""
    found: dict[int, int] = {}
    for node in reversed(forward):
        found[id(node)] = min((0 if u.backward else found[id(u)] for u in users[id(node)]), default=10 * FAR) + 1
    return found


def _price(node: Node, users: dict[int, list[Node]], distance: int) -> float:
    size = float(np.max(node.size, initial=0.0)) * FARTHER ** max(min(distance, FAR), 1)
    written = not node.fused or any(u.extern for u in users[id(node)])
    return size if written else UNWRITTEN * size


def _made_again(node: Node, users: dict[int, list[Node]]) -> bool:
    if node.view:
        return True
    return node.fused and not (node.random or node.kind in ("statistics", "weight") or _written_later(node, users))


def _written_later(node: Node, users: dict[int, list[Node]]) -> bool:
    """A kernel of the backward that is not fused reads it, or a part of it."""
    return any((u.backward and u.extern) or (u.view and _written_later(u, users)) for u in users[id(node)])


class _Network:
    """Edmonds and Karp's maximum flow: the shortest path with room, until there is none."""

    def __init__(self) -> None:
        self.room: dict[object, dict[object, float]] = {}

    def edge(self, begin: object, end: object, capacity: float) -> None:
        ahead = self.room.setdefault(begin, {})
        ahead[end] = ahead.get(end, 0.0) + capacity
        self.room.setdefault(end, {}).setdefault(begin, 0.0)

    def cut(self, source: object, sink: object) -> set[object]:
        """What can still be reached from ``source`` when the flow is largest."""
        while True:
            came = self._search(source)
            if sink not in came:
                return set(came)
            path, end = [], sink
            while end != source:
                path.append((came[end], end))
                end = came[end]
            flow = min(self.room[a][b] for a, b in path)
            for a, b in path:
                self.room[a][b] -= flow
                self.room[b][a] += flow

    def _search(self, source: object) -> dict[object, object]:
        came: dict[object, object] = {source: source}
        waiting = deque([source])
        while waiting:
            here = waiting.popleft()
            for there, room in self.room.get(here, {}).items():
                if there not in came and room > 0.0:
                    came[there] = here
                    waiting.append(there)
        return came
