"""A tape that lists a program's operations, so that time is counted over the very operations that memory is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

from axoc.cost.columns import Floats
from axoc.cost.tape import Flow, Parameter, Size, Storage, Tape, Value


@dataclass(frozen=True, kw_only=True)
class Operation:
    kind: str
    """Names a function in forward.py and in backward.py; "" is one that reads its inputs and writes its output."""
    sizes: tuple[Size, ...]
    """Of its own, such as a product's inner and outer width."""
    tokens: Floats
    output: Value | None = None
    inputs: tuple[Value, ...] = ()
    flows: tuple[Flow, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    saves: tuple[Storage, ...] = ()
    """Kept for the backward."""
    scratch: Size = 0.0
    """Of the backward, beside the inputs' gradients."""

    @property
    def width(self) -> Size:
        return 0.0 if self.output is None else self.output.width

    @property
    def bytes(self) -> float:
        return 0.0 if self.output is None else self.output.bytes

    @property
    def elements(self) -> Size:
        return self.width * self.tokens

    def needs(self, index: int = 0) -> bool:
        """True where that input wants a gradient."""
        return self.inputs[index].needs_gradient


class Operations(Tape):
    """Records operations in the order of the forward."""

    def __init__(self, tokens: Floats) -> None:
        super().__init__(tokens)
        self.all: list[Operation] = []
        self.needed: int = 0
        """Operations that a checkpointed block's second forward runs: those before the last one that saves a tensor,
        which it does before its kernel (early_stop in torch/utils/checkpoint.py)."""

    def apply(self, width: Size, bytes_: float, inputs: Any, **keywords: Any) -> Value:
        if keywords.get("saves"):
            self.needed = len(self.all)
        result = super().apply(width, bytes_, inputs, **keywords)
        self.all.append(
            Operation(
                kind=keywords.get("kind", ""),
                sizes=tuple(keywords.get("sizes", ())),
                tokens=self.tokens,
                output=result,
                inputs=tuple(inputs),
                flows=cast("tuple[Flow, ...]", tuple(keywords.get("flows") or ("new",) * len(inputs))),
                parameters=tuple(keywords.get("parameters", ())),
                saves=tuple(keywords.get("saves", ())),
                scratch=keywords.get("scratch", 0.0),
            )
        )
        return result

    def did(self, kind: str, *sizes: Size) -> None:
        self.all.append(Operation(kind=kind, sizes=sizes, tokens=self.tokens))

    def keep_output(self, result: Value) -> None:
        self.needed = len(self.all)
        if self.all[-1].output is result:
            self.all[-1] = replace(self.all[-1], saves=(*self.all[-1].saves, result.storage))
        super().keep_output(result)

    def reached(self, output: Value) -> Iterator[Operation]:
        """Operations whose backward runs, from the last on: those that ``output`` depends on, with a gradient to make."""
        wanted = {id(output)}
        for operation in reversed(self.all):
            made = operation.output
            if made is None or id(made) not in wanted or not made.needs_gradient:
                continue
            wanted |= {id(value) for value in operation.inputs if value.needs_gradient}
            yield operation


def sums(operations: list[Operation]) -> list[tuple[Value, int]]:
    """Values that several operations send a gradient to, and how many additions that takes. Parts of one tensor are put
    together instead (kind ``part``)."""
    uses: Counter[int] = Counter()
    values: dict[int, Value] = {}
    for operation in operations:
        if operation.kind != "part":
            for value in operation.inputs:
                if value.needs_gradient:
                    uses[id(value)] += 1
                    values[id(value)] = value
    return [(values[key], count - 1) for key, count in uses.items() if count > 1]
