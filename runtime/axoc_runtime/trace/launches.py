"""What a micro-step launches, in order: each operation with the shapes it is given and gives, for whoever knows what kernels take.

Operations that are the same again, block after block, are told once (``kinds``); ``order`` names them by their place there. Between
them stand marks, of what costs the host time and no kernel: a block's pass, an adapter's layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

UNLAUNCHED: Final = frozenset(
    {
        "_local_scalar_dense",
        "_reshape_alias",
        "_unsafe_view",
        "empty",
        "empty_like",
        "empty_strided",
        "is_same_size",
        "new_empty",
        "new_empty_strided",
        "resize_",
        "set_",
    }
)
"""Names of operations that no kernel runs for, beside views."""
PASS: Final = "pass"
BACK: Final = "back"
ADAPTER: Final = "adapter"
STACKED: Final = "stacked_adapter"
"""Of a parameter that holds a block's experts."""
Kind = tuple[Any, ...]


class Launches:
    """Of one micro-step after the other."""

    def __init__(self) -> None:
        self.kinds: dict[Kind, int] = {}
        self.micro_steps: list[list[int]] = []
        self.compiled = False
        """While a compiled graph runs, whose launches pass torch's dispatcher by."""
        self._hidden = 0
        self._launched: dict[Any, bool] = {}
        self._answers: tuple[dict[int, int], dict[int, int]] = ({}, {})
        """Places of kinds by what memory answered, outside compiled code and in it."""
        self._sequences: dict[Any, list[int]] = {}
        """Places of kinds that a program launches."""

    @contextmanager
    def micro_step(self) -> Iterator[None]:
        """What is launched inside belongs to one more of them."""
        self.micro_steps.append([])
        _followed.append(self)
        try:
            yield
        finally:
            _followed.pop()

    def see(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any, answer: Any = None) -> None:
        """An operation that torch dispatched. ``answer``: an object that is the same whenever it is the same operation on the same
        shapes, and stays."""
        if self._hidden or not self._launches(func):
            return
        known = self._answers[self.compiled]
        place = None if answer is None else known.get(id(answer))
        if place is not None:
            self.micro_steps[-1].append(place)
            return
        self.add(self._kind(func, args, kwargs, result))
        if answer is not None:
            known[id(answer)] = self.micro_steps[-1][-1]

    def _kind(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Kind:
        given: list[Any] = []
        for value in (*args, *kwargs.values()):
            if isinstance(value, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in value):
                given.extend(described(v) for v in value if isinstance(v, torch.Tensor))
            else:
                given.append(described(value) if isinstance(value, torch.Tensor) else plain(value))
        made = result if isinstance(result, (list, tuple)) else (result,)
        outputs = tuple(described(v) for v in made if isinstance(v, torch.Tensor))
        name = f"{func.namespace}.{func._overloadpacket.__name__}"
        return name, tuple(given), outputs, self.compiled

    def add(self, kind: Kind) -> None:
        self.micro_steps[-1].append(self.kinds.setdefault(kind, len(self.kinds)))

    def again(self, key: Any, whole: Callable[[], Any], rest: Callable[[], Any]) -> Any:
        """What ``whole`` gives, which launches the same whenever it is run by ``key``: noted the first time. ``rest`` gives it, too, with
        some of its launches left out."""
        known = self._sequences.get(key)
        if known is None and not self._hidden:
            at = len(self.micro_steps[-1])
            result = whole()
            self._sequences[key] = self.micro_steps[-1][at:]
            return result
        if not self._hidden:
            self.micro_steps[-1] += known or ()
        self._hidden += 1
        try:
            return rest()
        finally:
            self._hidden -= 1

    def _launches(self, func: Any) -> bool:
        found = self._launched.get(func)
        if found is None:
            returns = func._schema.returns
            views = bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
            found = self._launched[func] = not views and func._overloadpacket.__name__ not in UNLAUNCHED
        return found

    def to_dict(self) -> dict[str, Any]:
        """``kinds``: [name, given, made, whether in compiled code] each."""
        return {"kinds": [list(kind) for kind in self.kinds], "micro_steps": self.micro_steps}


_followed: list[Launches] = []
"""The one that follows now."""


def followed() -> Launches | None:
    """What follows now."""
    return _followed[-1] if _followed else None


def described(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Sizes, strides, bytes of an element."""
    return ("t", tuple(tensor.shape), tuple(tensor.stride()), tensor.element_size())


def plain(value: Any) -> Any:
    """Of numbers and their lists what they are; of all else no more than that it was there."""
    if isinstance(value, (list, tuple)):  # torch.Size, too
        return tuple(plain(v) for v in value)
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def note(name: str, *values: Any) -> None:
    """A kernel for which a stand-in runs, or a mark."""
    if _followed and not _followed[-1]._hidden:
        found = tuple(described(v) if isinstance(v, torch.Tensor) else plain(v) for v in values)
        _followed[-1].add((name, found, (), _followed[-1].compiled))


@contextmanager
def as_one(name: str, *values: Any) -> Iterator[None]:
    """Notes one kernel for all that runs inside."""
    note(name, *values)
    if not _followed:
        yield
        return
    mine = _followed[-1]
    mine._hidden += 1
    try:
        yield
    finally:
        mine._hidden -= 1


@contextmanager
def in_compiled_code() -> Iterator[None]:
    if not _followed:
        yield
        return
    mine = _followed[-1]
    was, mine.compiled = mine.compiled, True
    try:
        yield
    finally:
        mine.compiled = was


def mark(model: Any, blocks: Any, *, compiled: bool) -> None:
    """Marks what takes host time beside launches. Compiled code takes an adapter's layer through no Python."""
    for block in blocks:
        block.register_forward_pre_hook(lambda module, args: note(PASS))
        block.register_forward_hook(lambda module, args, output: _before_backward(output))
    for module in () if compiled else model.modules():
        if hasattr(module, "lora_A"):
            kind = STACKED if hasattr(module, "parameter_name") else ADAPTER
            module.register_forward_pre_hook(lambda module, args, kind=kind: note(kind))


def _before_backward(output: Any) -> None:
    hidden = output[0] if isinstance(output, tuple | list) else output
    if hidden.requires_grad and torch._C._current_graph_task_id() == -1:  # not when a checkpoint recomputes
        hidden.register_hook(lambda gradient: note(BACK))
