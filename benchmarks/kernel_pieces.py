"""Pieces of a step that the calibration has no table of, timed for kernel_times.py: seconds of kernels, and of the host.

A device's numbers are seconds of one call while the device never waits (calibrate/clock.py): forward, and backward where there
is one. The host's are the fastest of many calls on tensors whose kernels take nothing: what else a machine does only adds.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, Final

import host_pieces
from host_pieces import Pieces, normal

TOKENS: Final = (2048, 8192)
RANKS: Final = (16, 64)
WIDTHS: Final = (2048, 4096, 14336)
SECONDS: Final = 75.0
"""Start no piece after so long."""


def pieces(device: str) -> dict[str, Any]:
    import torch
    from axoc_runtime.calibrate.clock import CpuClock, CudaClock

    warnings.filterwarnings("ignore")
    clock: Any = CudaClock() if device == "cuda" else CpuClock()
    began, found, failed = time.monotonic(), {}, {}
    for source in SOURCES:
        for name, piece in source(clock):
            if time.monotonic() - began > SECONDS:
                failed["out of time"] = name
                break
            try:
                found[name] = piece()
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {error}"[:200]
            clock.release()
    return {"pieces": found, "failed": failed, "torch": torch.__version__}


def adapters(clock: Any) -> Pieces:
    """The six products of an adapter: both forward, the gradients of their inputs, and of both matrices."""
    import torch

    for tokens in TOKENS if not clock.small else (64,):
        for rank in RANKS:
            for width in WIDTHS if not clock.small else (64,):
                shapes = {
                    "down forward": ("nt", tokens, rank, width),
                    "up forward": ("nt", tokens, width, rank),
                    "up input gradient": ("nn", tokens, rank, width),
                    "down input gradient": ("nn", tokens, width, rank),
                    "up weight gradient": ("tn", width, rank, tokens),
                    "down weight gradient": ("tn", rank, width, tokens),
                }
                for name, shape in shapes.items():

                    def run(shape: tuple[str, int, int, int] = shape) -> list[float]:
                        layout, m, n, k = shape
                        a = normal(clock, k, m).t() if layout == "tn" else normal(clock, m, k)
                        b = normal(clock, n, k).t() if layout == "nt" else normal(clock, k, n)
                        return [clock.seconds([lambda: torch.mm(a, b)])]

                    yield f"adapter {tokens} tokens, rank {rank}, width {width}: {name}", run


def experts(clock: Any) -> Pieces:
    """Of adapters of stacked experts: (experts, out, rank) times (experts, rank, in), and both gradients."""
    import torch

    sizes = ((8, 28672, 4096, 16), (8, 4096, 14336, 16), (128, 1536, 2048, 16), (64, 2816, 2048, 16))
    for count, out, inner, rank in sizes if not clock.small else ((2, 64, 32, 8),):

        def run(count: int = count, out: int = out, inner: int = inner, rank: int = rank) -> list[float]:
            up, down = normal(clock, count, out, rank), normal(clock, count, rank, inner)
            whole = normal(clock, count, out, inner)
            return [
                clock.seconds([lambda: torch.bmm(up, down)]),
                clock.seconds([lambda: torch.bmm(whole, down.transpose(1, 2))]),
                clock.seconds([lambda: torch.bmm(up.transpose(1, 2), whole)]),
                clock.seconds([lambda: torch.einsum("eor,eri->eoi", up, down)]),
                clock.seconds([lambda: whole + whole]),
            ]

        yield f"experts' adapter {count} x {out} x {inner}, rank {rank}: whole, up's, down's gradient, einsum, add", run


def norms(clock: Any) -> Pieces:
    """Forward and backward of layer and RMS norms, weights trained."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    for tokens, width in ((4096, 2048), (8192, 2048), (8192, 1024), (8192, 4096)) if not clock.small else ((64, 64),):
        for dtype in (torch.float32, torch.bfloat16):

            def layer(tokens: int = tokens, width: int = width, dtype: Any = dtype) -> list[float]:
                x = normal(clock, tokens, width).to(dtype).requires_grad_()
                weight, bias = (normal(clock, width).to(dtype).requires_grad_() for _ in range(2))
                return both(clock, lambda: F.layer_norm(x, (width,), weight, bias), (x, weight, bias))

            yield f"layer norm {tokens} x {width} {dtype}", layer

    def grouped(shape: tuple[int, ...] = (2, 16, 2048, 128)) -> list[float]:
        """RMS norms of heads, as Qwen 3's."""
        from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

        norm = Qwen3RMSNorm(shape[-1]).to(clock.device, torch.bfloat16)
        x = normal(clock, *shape).requires_grad_()
        return both(clock, lambda: norm(x), (x, norm.weight))

    yield "RMS norm of 16 heads of 128, 4096 tokens", grouped


def parts(clock: Any) -> Pieces:
    """Elementwise kernels on the halves of a fused product, and the gradient put together; beside whole tensors."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    tokens, width = (4096, 8192) if not clock.small else (64, 64)

    def halves() -> list[float]:
        x = normal(clock, 1, tokens, 2 * width).requires_grad_()

        def run() -> Any:
            gate, up = x.chunk(2, dim=-1)
            return up * F.silu(gate)

        return both(clock, run, (x,))

    def whole() -> list[float]:
        gate, up = (normal(clock, 1, tokens, width).requires_grad_() for _ in range(2))
        return both(clock, lambda: up * F.silu(gate), (gate, up))

    def slices() -> list[float]:
        heads = normal(clock, 1, tokens, 3 * width // 8).requires_grad_()
        size = width // 8

        def run() -> Any:
            q, k, v = heads[..., :size], heads[..., size : 2 * size], heads[..., 2 * size :]
            return q * 2 + k * 2 + v * 2

        return both(clock, run, (heads,))

    def contiguous() -> list[float]:
        x = normal(clock, 1, tokens, 2 * width)
        gate, _ = x.chunk(2, dim=-1)
        made = torch.empty_like(gate)
        return [clock.seconds([lambda: made.copy_(gate)]), clock.seconds([lambda: F.silu(gate)])]

    yield "silu and product of halves", halves
    yield "silu and product of whole tensors", whole
    yield "slices of a fused projection", slices
    yield "copy and silu of a half", contiguous


def rotary(clock: Any) -> Pieces:
    """transformers' rotary embedding of one layer's queries and keys, as its attention hands them over."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    for batch, seq in ((8, 2048), (1, 16384), (4, 16384)) if not clock.small else ((1, 32),):

        def run(batch: int = batch, seq: int = seq) -> list[float]:
            q = normal(clock, batch, seq, 32, 64).requires_grad_()
            k = normal(clock, batch, seq, 8, 64).requires_grad_()
            cos, sin = normal(clock, batch, seq, 64), normal(clock, batch, seq, 64)

            def turn() -> Any:
                return apply_rotary_pos_emb(q.transpose(1, 2), k.transpose(1, 2), cos, sin)

            return both(clock, turn, (q, k))

        yield f"rotary {batch} x {seq}, 32 and 8 heads of 64", run


def both(clock: Any, run: Callable[[], Any], inputs: tuple[Any, ...]) -> list[float]:
    """[forward, backward]"""
    import torch

    made = run()
    made = made if isinstance(made, tuple) else (made,)
    gradients = tuple(torch.randn_like(m) for m in made)
    back = clock.seconds([lambda: torch.autograd.grad(made, inputs, gradients, retain_graph=True)])
    return [clock.seconds([run]), back]


SOURCES: Final = (
    host_pieces.operations,
    host_pieces.layers,
    host_pieces.stacked,
    host_pieces.checkpoints,
    adapters,
    experts,
    norms,
    parts,
    rotary,
    host_pieces.compiled,
)
