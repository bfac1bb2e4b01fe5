"""A recorded step's kernels by phase and class, from a trace in Chrome's format that has a mark where each phase begins."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Final

MARK: Final = "spin_kernel"
GAP_SECONDS: Final = 6e-6
"""Between kernels that were launched in time lie one or two microseconds; a longer pause is one that waits for the host."""
TOP: Final = 60
CLASSES: Final = (
    ("mark", MARK),
    ("optimizer", r"adam|lion|adagrad|FusedOptimizer|sgd|multi_tensor_apply|foreach|lpnorm|kOptimizer|Optimizer"),
    ("quantization", r"dequant|quantize|kgemm_4bit|gemv_4bit|Blockwise"),
    ("attention", r"flash|fmha|attention|fprop_bprop|sdpa|cudnn_generated|mha"),
    ("product", r"gemm|cutlass|cublas|nvjet|splitK|splitk|gemv|xmma|grouped|s16816|bmm|dot_kernel"),
    ("fused", r"^triton|^_[a-z].*kernel|liger|_rms_norm|_swiglu|_rope|cross_entropy"),
    ("norm", r"layer_norm|rms_norm|LayerNorm|GammaBeta"),
    ("softmax and loss", r"softmax|nll_loss|SoftMax"),
    ("reduction", r"reduce|Reduce|sum_functor|scan|Scan|sort|Sort|radix"),
    ("embedding", r"embedding|indexSelect|index_|gather|scatter"),
    ("copy", r"^Mem|copy|Copy|CatArray|cat_|direct_copy"),
    ("elementwise", r"elementwise|pointwise|vectorized|unrolled|fill"),
)
"""By what a kernel's name has in it; the first that fits."""


def recorded(trace: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Kernels by phase and class, and what the runtime was called for, from a trace in Chrome's format."""
    events = [e for e in trace["traceEvents"] if e.get("ph") == "X"]
    on_device = [e for e in events if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    calls = Counter(e["name"] for e in events if e.get("cat") in ("cuda_runtime", "cuda_driver"))
    on_device.sort(key=lambda e: e["ts"])
    phases = by_phase(on_device, names)
    tops = top([e for found in phases.values() for e in found])
    return {
        "phases": {name: summed(found) for name, found in phases.items() if found},
        "top": tops,
        "top_by_phase": {name: top(found)[:40] for name, found in phases.items()},
        "calls": dict(calls.most_common(16)),
    }


def by_phase(events: list[dict[str, Any]], names: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Each mark begins a phase; the stream keeps their order."""
    found: dict[str, list[dict[str, Any]]] = {}
    current, marks = "before", iter(names)
    for event in events:
        if MARK in event["name"]:
            current = next(marks, "end")
        found.setdefault(current, []).append(event)
    return found


def summed(events: list[dict[str, Any]]) -> dict[str, Any]:
    classes: dict[str, list[float]] = {}
    for event in events:
        kind = classes.setdefault(class_of(event["name"]), [0.0, 0])
        kind[0] += event["dur"] / 1e6
        kind[1] += 1
    classes.pop("mark", None)
    pauses = [p for p in _pauses(events) if p > 0]
    return {
        "classes": {k: [round(s, 7), int(n)] for k, (s, n) in sorted(classes.items(), key=lambda c: -c[1][0])},
        "busy_s": sum(s for s, _ in classes.values()),
        "launches": int(sum(n for _, n in classes.values())),
        "gaps_s": sum(p for p in pauses if p < GAP_SECONDS),
        "waits_s": sum(p for p in pauses if p >= GAP_SECONDS),
    }


def _pauses(events: list[dict[str, Any]]) -> list[float]:
    """Seconds in which no kernel ran, before each but the first; a phase that comes several times has marks between."""
    found, until = [], 0.0
    for event in events:
        if MARK not in event["name"] and until:
            found.append((event["ts"] - until) / 1e6)
        until = max(until, event["ts"] + event["dur"]) if MARK not in event["name"] else 0.0
    return found


def class_of(name: str) -> str:
    return next((kind for kind, pattern in CLASSES if re.search(pattern, name)), "other")


def top(events: list[dict[str, Any]]) -> list[list[Any]]:
    """[name, class, seconds, launches]"""
    seconds: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for event in events:
        name = event["name"][:180]
        seconds[name] += event["dur"] / 1e6
        counts[name] += 1
    return [[name, class_of(name), round(s, 7), counts[name]] for name, s in seconds.most_common(TOP)]
