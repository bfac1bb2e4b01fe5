"""Kernels for packed rows side by side: torch's varlen (flash attention 2), flash attention 4, cuDNN's ragged ones.

    python benchmarks/attention_kernels.py OUT.jsonl [torch,flash4,cudnn]

For each shape and kernel: milliseconds forward and backward (median of twenty, by events), TFLOP/s of the causal half, bytes
allocated at the peak beyond what stood before, and how far output and gradients are from float64's. cuDNN's through torch 2.11
(`_cudnn_attention_forward`) is wrong on an H100: gradients that are no numbers, memory read that is not its own, which ends the
process; and it makes its plan anew in every call (70 ms). So it runs only where it is asked for, and last.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn.attention.varlen import varlen_attn

HEADS: Final = {"1b": (32, 8, 64), "3b": (24, 8, 128), "8b": (32, 8, 128), "gemma": (8, 4, 256)}
TOKENS: Final = 16_384
CHECKED: Final = (700, 300, 24, 1000)
REPEATS: Final = 20

Tensors = tuple[torch.Tensor, ...]
Kernel = Callable[..., Tensors]
"""(q, k, v, boundaries, longest, gradient or None) -> (out, dq, dk, dv) or (out,)"""


def chat(tokens: int) -> list[int]:
    """Documents of a pack of chat-like rows, as benchmarks/throughput.py draws them: lognormal, median 300."""
    drawn, lengths = random.Random(0), []
    while sum(lengths) < tokens:
        lengths.append(min(2048, max(8, int(drawn.lognormvariate(5.7, 0.8))), tokens - sum(lengths)))
    return lengths


PACKS: Final = {"2k": [2048] * 8, "8k": [8192] * 2, "16k": [TOKENS], "chat": chat(TOKENS)}


def by_torch(q: Any, k: Any, v: Any, cu: Any, longest: int, grad: Any = None) -> Tensors:
    out = varlen_attn(q, k, v, cu, cu, longest, longest, window_size=(-1, 0), **_grouped())
    return (out,) if grad is None else (out, *torch.autograd.grad(out, (q, k, v), grad))


def _grouped() -> dict[str, bool]:
    import inspect

    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


def by_cudnn(q: Any, k: Any, v: Any, cu: Any, longest: int, grad: Any = None) -> Tensors:
    out = torch.ops.aten._cudnn_attention_forward(q, k, v, None, cu, cu, longest, longest, True, 0.0, True, False)[0]
    return (out,) if grad is None else (out, *torch.autograd.grad(out, (q, k, v), grad))


def by_flash_4(q: Any, k: Any, v: Any, cu: Any, longest: int, grad: Any = None) -> Tensors:
    from flash_attn.cute import flash_attn_varlen_func

    options = {"cu_seqlens_q": cu, "cu_seqlens_k": cu, "max_seqlen_q": longest, "max_seqlen_k": longest, "causal": True}
    out = flash_attn_varlen_func(q, k, v, **options)
    out = out[0] if isinstance(out, tuple) else out
    return (out,) if grad is None else (out, *torch.autograd.grad(out, (q, k, v), grad))


def inputs(heads: tuple[int, int, int], lengths: list[int], seed: int) -> tuple[Any, ...]:
    torch.manual_seed(seed)
    hq, hk, d = heads
    n = sum(lengths)
    q, k, v = (torch.randn(n, h, d, device="cuda", dtype=torch.bfloat16, requires_grad=True) for h in (hq, hk, hk))
    cu = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32, device="cuda")
    return q, k, v, cu, max(lengths), torch.randn(n, hq, d, device="cuda", dtype=torch.bfloat16)


def reference(q: Any, k: Any, v: Any, lengths: list[int], grad: Any) -> Tensors:
    q, k, v = (t.detach().double().requires_grad_() for t in (q, k, v))
    many = q.shape[1] // k.shape[1]
    made = []
    for a, b, c in zip(*(t.split(lengths) for t in (q, k, v)), strict=True):
        a, b, c = (t.transpose(0, 1) for t in (a, b.repeat_interleave(many, 1), c.repeat_interleave(many, 1)))
        scores = a @ b.transpose(1, 2) * a.shape[-1] ** -0.5
        hidden = torch.ones_like(scores, dtype=torch.bool).triu(1)
        made.append((scores.masked_fill(hidden, -torch.inf).softmax(-1) @ c).transpose(0, 1))
    out = torch.cat(made)
    return (out, *torch.autograd.grad(out, (q, k, v), grad.double()))


def errors(kernel: Kernel, heads: tuple[int, int, int]) -> list[float]:
    q, k, v, cu, longest, grad = inputs(heads, list(CHECKED), 1)
    wanted = reference(q, k, v, list(CHECKED), grad)
    got = kernel(q, k, v, cu, longest, grad)
    return [float((g.double() - w).norm() / w.norm()) for g, w in zip(got, wanted, strict=True)]


def milliseconds(run: Callable[[], Any]) -> float:
    for _ in range(3):
        run()
    found = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end))
    return statistics.median(found)


def measured(kernel: Kernel, heads: tuple[int, int, int], lengths: list[int]) -> dict[str, Any]:
    q, k, v, cu, longest, grad = inputs(heads, lengths, 2)
    with torch.no_grad():
        forward = milliseconds(lambda: kernel(q, k, v, cu, longest))
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    kernel(q, k, v, cu, longest, grad)
    peak = torch.cuda.max_memory_allocated() - before
    both = milliseconds(lambda: kernel(q, k, v, cu, longest, grad))
    flops = 2.0 * heads[0] * heads[2] * sum(n * n for n in lengths)
    return {
        "forward_ms": round(forward, 4),
        "backward_ms": round(both - forward, 4),
        "forward_tflops": round(flops / forward / 1e9, 1),
        "backward_tflops": round(2.5 * flops / (both - forward) / 1e9, 1),
        "peak_bytes": peak,
    }


def main(to: Path, names: str = "torch,flash4") -> None:
    kernels: dict[str, Kernel] = {"torch": by_torch, "flash4": by_flash_4, "cudnn": by_cudnn}
    with to.open("w") as out:
        for name, kernel in ((n, kernels[n]) for n in names.split(",")):
            for model, heads in HEADS.items():
                for pack, lengths in {"check": None, **PACKS}.items():
                    row: dict[str, Any] = {"kernel": name, "model": model, "pack": pack}
                    try:
                        if lengths is None:
                            row["errors"] = errors(kernel, heads)
                        else:
                            row |= measured(kernel, heads, lengths)
                    except Exception as stopped:
                        row["stopped"] = f"{type(stopped).__name__}: {stopped}"[:500]
                    print(json.dumps(row), flush=True)
                    print(json.dumps(row), file=out, flush=True)
                    if "stopped" in row:
                        break


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
