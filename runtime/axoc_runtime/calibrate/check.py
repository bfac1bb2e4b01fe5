"""Do kernels add up? Whole pieces of a step, timed, beside the sum of each of their operations timed alone.

Where the two agree, a step time can be summed from tables. Each operation is listed with its shapes, so that the
compiler's tables can be tried on the very same stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from axoc_runtime.calibrate.blocks import Block, BlockShape
from axoc_runtime.calibrate.clock import Clock, random, rotating
from axoc_runtime.calibrate.tables import rounded

LLAMA_1B: Final = BlockShape(hidden=2048, heads=32, kv_heads=8, head_dim=64, intermediate=8192)
LLAMA_8B: Final = BlockShape(hidden=4096, heads=32, kv_heads=8, head_dim=128, intermediate=14336)
TINY: Final = BlockShape(hidden=64, heads=4, kv_heads=2, head_dim=16, intermediate=128)


@dataclass
class Operation:
    """One kind of operation of the stream, and how often it comes."""

    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    count: int = 0


@dataclass
class Stream(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects operations that launch something, by what they are and what they are given."""

    found: dict[str, Operation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not _is_view(func, args, out):
            key = f"{func} {_described((args, kwargs))}"
            self.found.setdefault(key, Operation(func, args, kwargs or {})).count += 1
        return out


def _is_view(func: Any, args: Any, out: Any) -> bool:
    tensors = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
    if func._schema.is_mutable:
        return False
    inputs = {t.untyped_storage()._cdata for t in tree_leaves(args) if isinstance(t, torch.Tensor)}
    return not tensors or all(t.untyped_storage()._cdata in inputs for t in tensors) or "empty" in str(func)


def _described(values: Any) -> str:
    return " ".join(_word(v) for v in tree_leaves(values) if v is not None)


def _word(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return str(value)
    dtype = str(value.dtype).removeprefix("torch.")
    dense = "" if value.is_contiguous() else f"/{'x'.join(map(str, value.stride()))}"
    return f"{dtype}[{'x'.join(map(str, value.shape))}]{dense}"


def cases(clock: Clock) -> dict[str, Callable[[], torch.Tensor]]:
    """Name and forward of each piece; the backward is of its sum."""
    if clock.small:
        return {"block": _block(clock, TINY, torch.float32, 2, 32), "logits and loss": _loss(clock, 64, 64, 128)}
    return {
        "llama-3.2-1b block, fp32 weights, 4 x 2048": _block(clock, LLAMA_1B, torch.float32, 4, 2048),
        "llama-3-8b block, bf16 weights, 1 x 2048": _block(clock, LLAMA_8B, torch.bfloat16, 1, 2048),
        "llama-3-8b block, bf16 weights, 4 x 2048": _block(clock, LLAMA_8B, torch.bfloat16, 4, 2048),
        "logits and loss, 8192 x 2048 x 128256": _loss(clock, 8192, 2048, 128256),
    }


def _block(clock: Clock, shape: BlockShape, dtype: torch.dtype, batch: int, seq: int) -> Callable[[], torch.Tensor]:
    with torch.device(clock.device):
        block = Block(shape).to(dtype)
    x = random(clock, batch, seq, shape.hidden, dtype=dtype).requires_grad_()
    cos, sin = (random(clock, batch, 1, seq, shape.head_dim) for _ in range(2))

    def forward() -> torch.Tensor:
        with torch.autocast(clock.device.type, torch.bfloat16):
            out: torch.Tensor = block(x, cos, sin)
        return out

    return forward


def _loss(clock: Clock, tokens: int, hidden: int, vocabulary: int) -> Callable[[], torch.Tensor]:
    states = random(clock, tokens, hidden).requires_grad_()
    weight = random(clock, vocabulary, hidden, dtype=torch.float32, scale=0.02).requires_grad_()
    labels = torch.randint(vocabulary, (tokens,), device=clock.device)

    def forward() -> torch.Tensor:
        with torch.autocast(clock.device.type, torch.bfloat16):
            logits = F.linear(states, weight)
        return F.cross_entropy(logits.float(), labels, reduction="sum") / tokens

    return forward


def run(clock: Clock, told: Callable[[str], None]) -> list[dict[str, Any]]:
    """One entry a case and pass. ``told`` gets a line for each."""
    found = []
    for name, forward in cases(clock).items():
        inputs = _leaves(forward())
        grad = torch.randn_like(forward())

        def both(forward: Any = forward, grad: torch.Tensor = grad, inputs: Any = inputs) -> None:
            torch.autograd.grad(forward(), inputs, grad)

        with Stream() as ahead:
            forward()
        with Stream() as whole:
            both()
        for label, call, stream in (("forward", forward, ahead), ("forward and backward", both, whole)):
            entry = {"case": name, "pass": label, **_compared(clock, call, stream)}
            found.append(entry)
            told(_line(entry))
        clock.release()
    return found


def _leaves(out: torch.Tensor) -> list[torch.Tensor]:
    """The leaves that gradients flow to."""
    found: dict[int, torch.Tensor] = {}
    seen, todo = set(), [out.grad_fn]
    while todo:
        node: Any = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found[id(node.variable)] = node.variable
        todo += [n for n, _ in node.next_functions]
    return list(found.values())


def _compared(clock: Clock, call: Callable[[], Any], stream: Stream) -> dict[str, Any]:
    rows: list[list[Any]] = [[key, op.count, *_alone(clock, op)] for key, op in stream.found.items()]
    return {
        "measured_seconds": clock.seconds([call]),
        "eager_host_seconds": clock.host_seconds(call),
        "sum_cold_seconds": sum(r[1] * r[2] for r in rows if r[2] is not None),
        "sum_warm_seconds": sum(r[1] * r[3] for r in rows if r[3] is not None),
        "operations": sum(r[1] for r in rows),
        "not_timed": [r[0] for r in rows if r[2] is None],
        "columns": ["operation", "count", "cold_seconds", "warm_seconds"],
        "rows": [[rounded(v) for v in row] for row in rows],
    }


def _alone(clock: Clock, op: Operation) -> tuple[float | None, float | None]:
    num_bytes = sum(t.numel() * t.element_size() for t in _tensors((op.args, op.kwargs)))
    try:
        with torch.no_grad():
            calls = rotating(clock, lambda: _fresh(op), num_bytes)
            return clock.seconds(calls), clock.seconds(calls[:1])
    except RuntimeError:
        return None, None


def _fresh(op: Operation) -> Callable[[], Any]:
    args, kwargs = tree_map(_copied, (op.args, op.kwargs))
    return lambda: op.call(*args, **kwargs)


def _copied(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if any(stride == 0 for stride in value.stride()):
        return value.detach()  # broadcast: it is the small tensor that is read
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device).copy_(value)


def _tensors(values: Any) -> Iterable[torch.Tensor]:
    return (v for v in tree_leaves(values) if isinstance(v, torch.Tensor))


def _line(entry: dict[str, Any]) -> str:
    measured = entry["measured_seconds"]
    cold, warm = (100 * (entry[f"sum_{w}_seconds"] / measured - 1) for w in ("cold", "warm"))
    return (
        f"{entry['case']}, {entry['pass']}: {measured * 1e3:.3f} ms measured; its {entry['operations']} operations alone "
        f"{cold:+.1f}% (cold), {warm:+.1f}% (warm)"
    )
