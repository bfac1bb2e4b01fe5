"""A training step of packed rows as the runtime computes it, part by part: which kernels, dtype and compilation, how fast.

    python benchmarks/packed_step.py OUT.jsonl [--only REGEX] [--check] [--profile] [--seconds 200] [--device cpu] [--casts]

One line a variant: milliseconds of the whole step and of forward, backward and optimizer, tokens a second, the share of the
peak that the mathematics needs (6 FLOPs a weight and token, attention within documents), peak bytes, seconds to compile. A
plain loop around the runtime's own model parts, in a process of its own each, forked after the imports: what the Trainer adds
around it is in benchmarks/throughput.py. ``--check`` holds gradients of the kernels against float32 first.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import sys
import time
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

sys.path.insert(0, str(Path(__file__).resolve().parent))
PEAK_FLOPS: Final = 989e12
"""An H100 SXM's in bfloat16, without sparsity."""
LONGEST: Final = 2048
STEPS: Final = 8
PROFILED = False
SETTLED: Final = 3

VARIANTS: Final = [
    # name, model of the catalog, method, dtype, kernels, compiled, blocks recomputed (true: all), tokens of a micro-batch
    ("1b-bf16-liger", "llama-3.2-1b", "full", "bf16", "liger", False, 0, 16384),
    ("1b-bf16-liger-compiled", "llama-3.2-1b", "full", "bf16", "liger", True, 0, 16384),
    ("1b-bf16-chunked-compiled", "llama-3.2-1b", "full", "bf16", "chunked", True, 0, 16384),
    ("1b-bf16-chunked-compiled-stochastic", "llama-3.2-1b", "full", "bf16", "chunked", True, 0, 16384),
    ("1b-bf16-chunked-compiled-of-8k", "llama-3.2-1b", "full", "bf16", "chunked", True, 0, 16384),
    ("3b-bf16-chunked-compiled-of-8k", "llama-3.2-3b", "full", "bf16", "chunked", True, 0, 16384),
    ("1b-bf16-chunked-compiled-of-2k", "llama-3.2-1b", "full", "bf16", "chunked", True, 0, 16384),
    ("3b-bf16-chunked-compiled-of-2k", "llama-3.2-3b", "full", "bf16", "chunked", True, 0, 16384),
    ("1b-bf16-liger-compiled-32k", "llama-3.2-1b", "full", "bf16", "liger", True, 0, 32768),
    ("1b-fp32-liger-compiled", "llama-3.2-1b", "full", "fp32", "liger", True, 0, 16384),
    ("8b-lora-liger", "llama-3-8b", "lora", "bf16", "liger", False, True, 8192),
    ("8b-lora-liger-compiled", "llama-3-8b", "lora", "bf16", "liger", True, True, 8192),
    ("8b-lora-liger-compiled-kept", "llama-3-8b", "lora", "bf16", "liger", True, 0, 8192),
    ("8b-qlora-liger", "llama-3-8b", "qlora", "nf4", "liger", False, True, 8192),
    ("8b-qlora-liger-compiled", "llama-3-8b", "qlora", "nf4", "liger", True, True, 8192),
    ("8b-qlora-liger-compiled-kept", "llama-3-8b", "qlora", "nf4", "liger", True, 0, 8192),
    ("8b-lora-chunked-compiled-kept", "llama-3-8b", "lora", "bf16", "chunked", True, 0, 8192),
    ("3b-bf16-chunked-compiled", "llama-3.2-3b", "full", "bf16", "chunked", True, 0, 16384),
    ("1b-fp8-chunked-compiled", "llama-3.2-1b", "full", "fp8", "chunked", True, 0, 16384),
    ("1b-fp8-liger-compiled-32k", "llama-3.2-1b", "full", "fp8", "liger", True, 0, 32768),
    ("1b-fp8-gw16-chunked-compiled", "llama-3.2-1b", "full", "gw16-fp8", "chunked", True, 0, 16384),
    ("3b-fp8-gw16-chunked-compiled", "llama-3.2-3b", "full", "gw16-fp8", "chunked", True, 0, 16384),
    ("1b-fp32-fp8-chunked-compiled", "llama-3.2-1b", "full", "fp32-fp8", "chunked", True, 0, 16384),
    ("3b-fp8-chunked-compiled", "llama-3.2-3b", "full", "fp8", "chunked", True, 0, 16384),
    ("8b-lora-fp8-chunked-compiled-kept", "llama-3-8b", "lora", "fp8", "chunked", True, 0, 8192),
    ("8b-lora-fp8-chunked-compiled-kept-16k", "llama-3-8b", "lora", "fp8", "chunked", True, 0, 16384),
    ("tiny-fp32-chunked-compiled", "tiny", "full", "fp32", "chunked", True, 0, 256),
    ("tiny-fp32-chunked-compiled-stochastic", "tiny", "full", "fp32", "chunked", True, 0, 256),
    ("tiny-fp32-fp8-chunked-compiled", "tiny", "full", "fp32-fp8", "chunked", True, 0, 256),
]
"""fp8: weights in bf16, or in fp32 where it says so, and the blocks' products in float8; gw16: but for the weights' gradients."""
WHOLE: Final = {"-of-2k": 2048, "-of-8k": 8192}
"""Variants whose documents are all of so many tokens, by the end of their names."""
TINY: Final = {
    "vocab_size": 211, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--only", default="^(1b|8b)")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--seconds", type=float, default=200.0, help="start nothing after so long")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--casts", action="store_true", help="adapters as PEFT computes them: inputs cast, results scaled"
    )
    parser.add_argument("--profile", action="store_true", help="print a step's kernels")
    parser.add_argument(
        "--attention", default="varlen", help="varlen, or flash_attention_4 where flash-attn-4 is installed"
    )
    options = parser.parse_args()
    global PROFILED
    PROFILED = options.profile
    import torch
    import transformers
    from transformers import AutoModelForCausalLM  # noqa: F401

    transformers.logging.set_verbosity_error()
    assert not torch.cuda.is_initialized()
    began = time.monotonic()
    if options.check:
        _in_a_child({"id": "check"}, options.rows, lambda: check(options.device, options.attention))
    for variant in (v for v in VARIANTS if re.search(options.only, v[0])):
        if time.monotonic() - began > options.seconds:
            print("out of time: the rest was not measured", flush=True)
            break
        keys = ("id", "model", "method", "dtype", "kernels", "compiled", "gc", "tokens")
        row = dict(zip(keys, variant, strict=True)) | {"casts": options.casts, "between": not options.casts}
        row["attention"] = options.attention
        _in_a_child(row, options.rows, lambda row=row: measure(row, options.device))  # type: ignore[misc]
    return 0


def _in_a_child(row: dict[str, Any], rows: Path, work: Any) -> None:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        measured = row | work()
    except BaseException as error:
        measured = row | {"error": f"{type(error).__name__}: {error}"[:300]}
        traceback.print_exc()
    with rows.open("a") as out:
        out.write(json.dumps(measured) + "\n")
    print(_line(measured), flush=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _line(row: dict[str, Any]) -> str:
    if "error" in row or "step_ms" not in row:
        return f"{row['id']}: {row.get('error') or {k: v for k, v in row.items() if k != 'id'}}"
    return (
        f"{row['id']}: step {row['step_ms']:.1f} ms (forward {row['forward_ms']:.1f}, backward {row['backward_ms']:.1f}, "
        f"optimizer {row['optimizer_ms']:.1f}; host {row['host_ms']:.1f}), {row['tokens_per_second']:,.0f} tokens/s, "
        f"MFU {row['mfu']:.1%}, peak {row['peak_allocated_bytes'] / 2**30:.1f} GiB, first step {row['first_seconds']:.0f} s, "
        f"loss {row['loss']:.4f}"
    )


def measure(row: dict[str, Any], device: str) -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    model = build(row, device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = optimizer_of(row, trained, device)
    whole_documents = next((n for end, n in WHOLE.items() if row["id"].endswith(end)), None)
    batches = [pack(row["tokens"], i, device, whole_documents) for i in range(3)]
    sync = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    taken, losses, first = [], [], 0.0
    for index in range(STEPS):
        batch = batches[index % len(batches)]
        sync()
        marks = [time.perf_counter()]
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = model(**batch, num_items_in_batch=batch["labels"].ne(-100).sum()).loss
        sync()
        marks.append(time.perf_counter())
        loss.backward()
        sync()
        marks.append(time.perf_counter())
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        sync()
        marks.append(time.perf_counter())
        losses.append(float(loss.detach()))
        taken.append([1e3 * (b - a) for a, b in itertools.pairwise(marks)])
        first = first or marks[-1] - marks[0]
    whole, host = _unbroken(model, batches, optimizer, trained, device, sync)
    if PROFILED:
        _profile(model, batches[0], optimizer, device)
    settled = sorted(taken[SETTLED:], key=sum)
    forward, backward, step = settled[len(settled) // 2]
    return {
        "step_ms": whole, "host_ms": host, "forward_ms": forward, "backward_ms": backward, "optimizer_ms": step,
        "tokens_per_second": 1e3 * row["tokens"] / whole,
        "mfu": flops(model, batches, row["method"]) / (whole / 1e3) / PEAK_FLOPS,
        "peak_allocated_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else 0,
        "first_seconds": first, "loss": losses[-1], "losses": losses, "torch": torch.__version__,
    }  # fmt: skip


def optimizer_of(row: dict[str, Any], trained: list[Any], device: str) -> Any:
    import torch

    if not row["id"].endswith("stochastic"):
        return torch.optim.AdamW(trained, lr=1e-5, fused=True)
    from axoc_runtime.optimizers.stochastic_adamw import StochasticAdamW

    return StochasticAdamW(trained, lr=1e-5, compiled=True)


def _unbroken(model: Any, batches: list[Any], optimizer: Any, trained: list[Any], device: str, sync: Any) -> Any:
    """(milliseconds of a step, of its launching) where the host is not stopped within and between steps."""
    import torch

    sync()
    began, launched = time.perf_counter(), 0.0
    for index in range(6):
        batch, at = batches[index % len(batches)], time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = model(**batch, num_items_in_batch=batch["labels"].ne(-100).sum()).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        launched += time.perf_counter() - at
    sync()
    return 1e3 * (time.perf_counter() - began) / 6, 1e3 * launched / 6


def _profile(model: Any, batch: Any, optimizer: Any, device: str) -> None:
    """Prints what a step's time on the device goes to, by kernel."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with profile(activities=kinds) as seen, torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        model(**batch, num_items_in_batch=batch["labels"].ne(-100).sum()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    events = [e for e in seen.key_averages() if e.self_device_time_total or device == "cpu"]
    for event in sorted(events, key=lambda e: -(e.self_device_time_total or e.self_cpu_time_total))[:24]:
        taken = event.self_device_time_total or event.self_cpu_time_total
        print(f"  {taken / 1e3:8.2f} ms {event.count:5} x {event.key[:110]}", flush=True)


def build(row: dict[str, Any], device: str) -> Any:
    import measure as plain
    import torch
    from axoc_runtime.attention import BACKENDS
    from axoc_runtime.attention.register import register_varlen
    from axoc_runtime.kernels import LOSS_ALONE, float8
    from axoc_runtime.kernels.compiled import compile_blocks
    from axoc_runtime.kernels.head import use_chunked_loss
    from transformers import AutoConfig, AutoModelForCausalLM

    register_varlen()
    plain.DEVICE = device  # type: ignore[misc]
    dtype = row["dtype"].removesuffix("-fp8")
    shape = {**row, "dtype": dtype, "attention": BACKENDS[row["attention"]].implementation, "targets": "all-linear"}
    if row["model"] == "tiny":
        config = AutoConfig.for_model("llama", **TINY)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=shape["attention"])
    else:
        model = plain.make_model(shape)
        plain.set_checkpointing(shape, model)
    job: Any = SimpleNamespace(
        model=SimpleNamespace(decoder_block="LlamaDecoderLayer", family="llama", compile=row["compiled"]),
        datasets=[SimpleNamespace(packing=True)],
        distributed=SimpleNamespace(tensor_parallel=1, device=device),
    )
    if row["kernels"] == "chunked":
        use_chunked_loss(job, model)
    if row["kernels"] == "liger":
        from transformers.integrations.liger import apply_liger_kernel

        apply_liger_kernel(model, LOSS_ALONE if row["compiled"] else None)
    model = model.train().to(torch.device(device))
    if row["dtype"].endswith("fp8"):
        float8.WEIGHT_GRADIENTS = not row["dtype"].startswith("gw16")
        float8.use_float8(job, model)
    if row["compiled"]:
        compile_blocks(job, model)
    return model


def lengths(tokens: int, seed: int) -> list[int]:
    """Of documents that fill rows of LONGEST: chat-like, none across a row's end."""
    import numpy as np

    draw, found = np.random.default_rng(seed), []
    for room in [LONGEST] * (tokens // LONGEST) or [tokens]:
        left = room
        while left:
            made = min(left, int(np.clip(draw.lognormal(np.log(300), 0.8), 8, LONGEST)))
            found.append(made)
            left -= made
    return found


def pack(tokens: int, seed: int, device: str, whole: int | None = None) -> dict[str, Any]:
    """A row of chat-like documents, or of ones of ``whole`` tokens each."""
    import torch

    found = [whole] * (tokens // whole) if whole else lengths(tokens, seed)
    longest = whole or LONGEST
    ends = torch.tensor([0, *found]).cumsum(0).to(torch.int32)
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 200, (1, tokens), generator=draw)
    labels = ids.clone()
    labels[0, ends[:-1].long()] = -100
    tensors = {
        "input_ids": ids, "labels": labels, "position_ids": torch.cat([torch.arange(n) for n in found])[None],
        "cu_seq_lens_q": ends, "cu_seq_lens_k": ends,
    }  # fmt: skip
    return {k: v.to(device) for k, v in tensors.items()} | {"max_length_q": longest, "max_length_k": longest}


def flops(model: Any, batches: list[Any], method: str) -> float:
    """What a step's mathematics needs: forward and backward of every product, twice the forward for the backward; the
    gradient by a frozen weight is not made. The embedding looks up, and is a product only as a tied head."""
    from axoc_runtime.strategies.promised import full_size

    config = model.config
    looked_up = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    weights = sum(full_size(p) for p in model.parameters()) - looked_up
    ends = [b["cu_seq_lens_q"].tolist() for b in batches]
    squares = sum((b - a) ** 2 for e in ends for a, b in itertools.pairwise(e)) / len(batches)
    tokens = batches[0]["input_ids"].numel()
    heads = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    products = (6 if method == "full" else 4) * weights * tokens
    return products + 6 * config.num_hidden_layers * heads * squares


def check(device: str, attention: str) -> dict[str, Any]:
    """Errors of gradients against float32, as shares of their norms: the kernel's in bfloat16, and eager's in bfloat16."""
    import torch
    from axoc_runtime.attention.by_document import by_document
    from axoc_runtime.attention.flash_4 import kernel as flash_4
    from axoc_runtime.attention.varlen import _kernel as varlen

    kernel = flash_4 if attention == "flash_attention_4" else varlen
    found: dict[str, Any] = {}
    for size, groups, window in ((64, 4, None), (128, 4, None), (128, 1, 512), (256, 2, None)):
        draw = torch.Generator().manual_seed(0)
        ends = torch.tensor([0, 700, 707, 1900, 2048], dtype=torch.int32, device=device)
        shapes = [(2048, 8, size), (2048, 8 // groups, size), (2048, 8 // groups, size), (2048, 8, size)]
        exact = [torch.randn(s, generator=draw).to(device) for s in shapes]

        def of(given: list[Any], fast: bool, window: Any = window, ends: Any = ends) -> list[Any]:
            q, k, v = (t.clone().requires_grad_() for t in given[:3])
            options = {"softcapping": None, "dropout": 0.0, "because": "check"}
            made = (
                kernel(q, k, v, ends, 2048, None, window)
                if fast
                else by_document(q, k, v, ends, scale=None, window=window, **options)
            )
            return [made, *torch.autograd.grad(made, (q, k, v), given[3])]

        half = [t.bfloat16() for t in exact]
        wanted = of(half_as_exact(half), fast=False)
        made, plain = of(half, fast=device == "cuda"), of(half, fast=False)
        name = f"size {size}, groups {groups}, window {window}"
        found[name] = [
            (
                round(float(((a.float() - w).norm() / w.norm()).detach()), 5),
                round(float(((b.float() - w).norm() / w.norm()).detach()), 5),
            )
            for a, b, w in zip(made, plain, wanted, strict=True)
        ]
    found["torch"] = torch.__version__
    found["loss"] = _check_loss(device)
    return found


def half_as_exact(half: list[Any]) -> list[Any]:
    """The rounded values in float32, so that only what is computed differs."""
    return [t.float() for t in half]


def _check_loss(device: str) -> dict[str, float]:
    """The chunked loss, eager and compiled, against torch's own in float32: relative errors of the loss and gradients."""
    import torch
    from axoc_runtime.kernels.chunked_loss import linear_cross_entropy

    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(1500, 256, generator=draw).to(device).bfloat16()
    weight = (torch.randn(32000, 256, generator=draw) / 16).to(device).bfloat16()
    targets = torch.randint(0, 32000, (1500,), generator=draw).to(device)
    targets[::7] = -100

    def of(dtype: Any, loss: Any) -> list[Any]:
        given = [hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()]
        made = loss(*given)
        return [made.detach(), *torch.autograd.grad(made, given)]

    exact = of(torch.float32, lambda h, w: torch.nn.functional.cross_entropy(h @ w.t(), targets))
    found = {}
    for name, compiled in (("eager", False), ("compiled", True)):
        made = of(
            torch.bfloat16,
            lambda h, w, c=compiled: linear_cross_entropy(h, w, targets, compiled=c, logits_at_once=2**24),  # type: ignore[misc]
        )
        found |= {
            f"{name} {what}": round(float((a.float() - e).norm() / e.norm()), 6)
            for what, a, e in zip(("loss", "hidden", "weight"), made, exact, strict=True)
        }
    return found


if __name__ == "__main__":
    sys.exit(main())
