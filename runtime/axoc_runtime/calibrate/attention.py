"""Attention's forward and backward by backend of scaled_dot_product_attention, and torch's variable-length kernel.

Tensors lie as transformers hands them over: (batch, sequence, heads, head size) in memory, transposed to heads first.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch.nn.attention import SDPBackend, sdpa_kernel

from axoc_runtime.calibrate.clock import Clock, random, rotating
from axoc_runtime.calibrate.dtypes import DTYPES
from axoc_runtime.calibrate.tables import Point, Table, Value

BACKENDS: Final = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
FUSED: Final = ("flash", "cudnn")
TOKENS: Final = 8192
COMPARED: Final = 2048
"""Rows at which backends that torch does not pick are measured as well."""
SDPA_KEYS: Final = ("backend", "dtype", "mask", "batch", "heads", "kv_heads", "head_dim", "seq")


def table(*, small: bool) -> Table:
    return Table(
        name="attention",
        about="scaled_dot_product_attention; mask: causal (is_causal), full (none), bool (a causal attn_mask)",
        keys=SDPA_KEYS,
        values=("forward_seconds", "backward_seconds"),
        points=_small_points() if small else list(dict.fromkeys(_points())),
        measure=measure,
    )


def default_table(*, small: bool) -> Table:
    """Which backend torch takes by itself: it differs between versions, and so do the seconds."""
    points = [p[1:] for p in (_small_points() if small else _points())]
    return Table(
        name="attention_default",
        about="the backend scaled_dot_product_attention picks by itself for a bf16 training step",
        keys=SDPA_KEYS[1:],
        values=("backend",),
        points=list(dict.fromkeys(points)),
        measure=_default_backend,
    )


def varlen_table(*, small: bool) -> Table:
    cases = [(8192, docs, heads, kv, dim) for docs in (1, 4, 16, 64) for heads, kv, dim in ((32, 8, 64), (32, 8, 128))]
    return Table(
        name="attention_varlen",
        about="torch.nn.attention.varlen.varlen_attn, causal, equal documents",
        keys=("tokens", "documents", "heads", "kv_heads", "head_dim"),
        values=("forward_seconds", "backward_seconds"),
        points=[(64, 2, 2, 2, 16)] if small else [*cases, (32768, 16, 32, 8, 64), (32768, 16, 32, 8, 128)],
        measure=_measure_varlen,
    )


def flash_4_table(*, small: bool) -> Table:
    """Where flash-attn-4 is not installed, every point is left out with the reason."""
    heads = ((32, 8, 64), (32, 8, 128), (32, 32, 128), (8, 4, 256))
    cases = [(8192, docs, *h) for h in heads for docs in (1, 4, 16, 64)]
    return Table(
        name="attention_flash_4",
        about="flash attention 4 (flash-attn-4), causal, equal documents",
        keys=("tokens", "documents", "heads", "kv_heads", "head_dim"),
        values=("forward_seconds", "backward_seconds"),
        points=[] if small else [*cases, (32768, 16, 32, 8, 64), (32768, 16, 32, 8, 128), (32768, 1, 32, 8, 128)],
        measure=_measure_flash_4,
    )


def _points() -> list[Point]:
    """Long rows alone, short rows in a batch; few heads, many heads; grouped heads; masks as sliding windows need.

    All of them for the backend that torch picks here by itself; for the other one a few, to compare.
    """
    picked = _picked()
    found = [point for backend in (picked, *(b for b in FUSED if b != picked)) for point in _causal(backend)]
    found = [point for point in found if point[0] == picked or point[-1] == COMPARED]
    for dim, heads in ((64, 32), (96, 32), (128, 32), (256, 8), (256, 4), (128, 16)):
        for s in (1024, 2048, 4096):
            found += [(b, "bf16", "bool", TOKENS // s, heads, heads, dim, s) for b in ("cudnn", "efficient")]
        found += [(b, "bf16", "bool", 1, heads, heads, dim, COMPARED) for b in ("cudnn", "efficient")]
    found = [p for p in found if p[0] != "efficient" or p[-1] == COMPARED or picked == "flash"]  # flash takes no mask
    found += [("math", "bf16", "causal", b, 32, 32, d, s) for d in (64, 128) for s, b in ((1024, 4), (2048, 2))]
    found += [("efficient", "fp32", "causal", 4, 32, 32, d, 2048) for d in (64, 128)]
    return found


def _causal(backend: str) -> list[Point]:
    found: list[Point] = []
    for dim, heads in ((64, 32), (128, 32), (64, 14), (96, 32), (128, 16), (80, 32), (256, 8)):
        sizes = [(s, max(1, TOKENS // s)) for s in (512, 1024, 2048, 4096, 8192)] + [(1024, 1), (2048, 1), (4096, 1)]
        found += [(backend, "bf16", "causal", b, heads, heads, dim, s) for s, b in sizes]
    found += [(backend, "bf16", "causal", 1, 32, 32, dim, 32768) for dim in (64, 128)]
    grouped = ((32, 8, 64), (32, 8, 128), (32, 4, 128), (14, 2, 64), (8, 4, 256), (4, 1, 256))
    found += [(backend, "bf16", "causal", TOKENS // s, h, kv, d, s) for h, kv, d in grouped for s in (1024, 2048, 8192)]
    return [*found, *((backend, "bf16", "full", 4, 32, 32, d, COMPARED) for d in (64, 128))]


def _picked() -> str:
    """The fused backend that torch takes for causal attention; flash where there is no device to ask."""
    if not torch.cuda.is_available():
        return FUSED[0]
    q = torch.empty(1, 32, 512, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    choice = torch._fused_sdp_choice(q, q, q, None, 0.0, True)
    return next((name for name in FUSED if int(BACKENDS[name].value) == int(choice)), FUSED[0])


def _small_points() -> list[Point]:
    return [
        ("flash", "bf16", "causal", 2, 4, 4, 16, 64),
        ("math", "bf16", "bool", 2, 4, 2, 16, 64),
        ("flash", "fp32", "full", 1, 2, 2, 16, 64),
    ]


def measure(clock: Clock, point: Point) -> Sequence[Value]:
    with sdpa_kernel([BACKENDS[str(point[0])]]):
        return _both_ways(clock, lambda: _inputs(clock, point[1:]), _sdpa(clock, point[1:]), _input_bytes(point[1:]))


def _both_ways(clock: Clock, make: Callable[[], Any], run: Callable[..., Any], num_bytes: int) -> tuple[float, float]:
    """Forward and backward seconds of ``run`` on rotating inputs."""
    sets = rotating(clock, make, num_bytes)
    forward = clock.seconds([lambda s=s: run(*s) for s in sets])  # type: ignore[misc]
    outs = [(run(*s), s) for s in sets]
    grads = [torch.randn_like(out) for out, _ in outs]
    calls = [
        lambda out=out, s=s, g=g: torch.autograd.grad(out, s, g, retain_graph=True)
        for (out, s), g in zip(outs, grads, strict=True)
    ]
    return forward, clock.seconds(calls)


def _inputs(clock: Clock, point: Point) -> tuple[torch.Tensor, ...]:
    dtype, _, batch, heads, kv_heads, dim, seq = point
    assert isinstance(batch, int) and isinstance(heads, int) and isinstance(kv_heads, int)
    assert isinstance(dim, int) and isinstance(seq, int)
    return tuple(
        random(clock, batch, seq, h, dim, dtype=DTYPES[str(dtype)]).transpose(1, 2).requires_grad_()
        for h in (heads, kv_heads, kv_heads)
    )


def _input_bytes(point: Point) -> int:
    dtype, _, batch, heads, kv_heads, dim, seq = point
    return int(DTYPES[str(dtype)].itemsize * batch * seq * dim * (heads + 2 * kv_heads))  # type: ignore[operator]


def _sdpa(clock: Clock, point: Point) -> Callable[..., torch.Tensor]:
    _, mask, batch, heads, kv_heads, _, seq = point
    gqa = heads != kv_heads
    if mask == "bool":
        assert isinstance(seq, int) and isinstance(batch, int)
        allowed = torch.ones(seq, seq, dtype=torch.bool, device=clock.device).tril_().expand(batch, 1, seq, seq)
        return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, enable_gqa=gqa)
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=mask == "causal", enable_gqa=gqa)


def _default_backend(clock: Clock, point: Point) -> Sequence[Value]:
    q, k, v = _inputs(clock, point)
    _, mask, batch, heads, kv_heads, _, seq = point
    allowed = None
    if mask == "bool":
        assert isinstance(seq, int) and isinstance(batch, int)
        allowed = torch.ones(batch, 1, seq, seq, dtype=torch.bool, device=clock.device)
    choice = torch._fused_sdp_choice(q, k, v, allowed, 0.0, mask == "causal", enable_gqa=heads != kv_heads)
    names = {int(backend.value): name for name, backend in BACKENDS.items()}
    return (names.get(int(choice), str(choice)),)


def _measure_flash_4(clock: Clock, point: Point) -> Sequence[Value]:
    from axoc_runtime.attention.flash_4 import kernel

    tokens, docs, heads, kv_heads, dim = (int(v) for v in point)
    length = tokens // docs
    bounds = torch.arange(0, tokens + 1, length, dtype=torch.int32, device=clock.device)

    def make() -> tuple[torch.Tensor, ...]:
        return tuple(random(clock, tokens, h, dim).requires_grad_() for h in (heads, kv_heads, kv_heads))

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        return kernel(q, k, v, bounds, length, None, None)

    return _both_ways(clock, make, run, 2 * tokens * dim * (heads + 2 * kv_heads))


def _measure_varlen(clock: Clock, point: Point) -> Sequence[Value]:
    """Where this torch's kernel takes no grouped heads, keys and values are repeated before, as whoever calls it must."""
    from torch.nn.attention.varlen import varlen_attn

    tokens, docs, heads, kv_heads, dim = (int(v) for v in point)
    accepted = inspect.signature(varlen_attn).parameters
    causal: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in accepted else {"is_causal": True}
    groups = "enable_gqa" in accepted and kv_heads != heads
    grouped: dict[str, Any] = {"enable_gqa": True} if groups else {}
    repeats = 1 if groups else heads // kv_heads
    length = tokens // docs
    bounds = torch.arange(0, tokens + 1, length, dtype=torch.int32, device=clock.device)

    def make() -> tuple[torch.Tensor, ...]:
        return tuple(random(clock, tokens, h, dim).requires_grad_() for h in (heads, kv_heads, kv_heads))

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        keys, values = (x.repeat_interleave(repeats, dim=1) if repeats > 1 else x for x in (k, v))
        return varlen_attn(q, keys, values, bounds, bounds, length, length, **causal, **grouped)

    return _both_ways(clock, make, run, 2 * tokens * dim * (heads + 2 * kv_heads))
