"""What torch's attention takes for a shape that it has not seen: the first call beside the second, by backend and mask.

    python benchmarks/attention_plans.py OUT.jsonl [--device cpu]

cuDNN builds a plan for each new shape. Rows padded to the longest of their batch have a new length in almost every step. One line
a backend: milliseconds of the first forward and backward of each length, the device waited for, and of the second. Takes 20
seconds on a GPU.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

BATCH: Final = 8
HEADS: Final = 32
HEAD_DIM: Final = 64
LENGTHS: Final = tuple(range(520, 712, 16))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    import torch
    from torch.nn.attention import SDPBackend

    chosen = {
        "default": None,
        "efficient": [SDPBackend.EFFICIENT_ATTENTION],
        "flash": [SDPBackend.FLASH_ATTENTION],
        "math": [SDPBackend.MATH],
    }
    with options.out.open("a") as file:
        for name, backends in chosen.items():
            for masked in (True, False):
                if masked and name == "flash":
                    continue  # takes no mask
                row = {"id": f"{name}, {'masked' if masked else 'causal'}", "torch": torch.__version__}
                try:
                    row |= measured(options.device, backends, masked=masked)
                except RuntimeError as error:
                    row["error"] = str(error)[:200]
                file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)
    return 0


def measured(device: str, backends: Any, *, masked: bool) -> dict[str, Any]:
    import contextlib

    from torch.nn.attention import sdpa_kernel

    lengths = LENGTHS if device == "cuda" else LENGTHS[:2]
    found: dict[str, list[float]] = {}
    for seq in lengths:
        with contextlib.nullcontext() if backends is None else sdpa_kernel(backends):
            for call in ("first", "second"):
                for phase, seconds in once(device, seq, masked=masked).items():
                    found.setdefault(f"{call}_{phase}_ms", []).append(round(1e3 * seconds, 3))
    return {"lengths": list(lengths), **found}


def once(device: str, seq: int, *, masked: bool) -> dict[str, float]:
    """Seconds of a forward and of a backward, each until the device is done."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    shape = (BATCH, HEADS, seq, HEAD_DIM)
    heads = [torch.randn(shape, device=device, dtype=torch.bfloat16) for _ in range(3)]
    for tensor in heads:
        tensor.requires_grad_()
    mask = torch.ones(BATCH, 1, seq, seq, device=device, dtype=torch.bool).tril() if masked else None
    gradient = torch.randn_like(heads[0])
    forward, made = timed(device, lambda: F.scaled_dot_product_attention(*heads, attn_mask=mask, is_causal=not masked))
    backward, _ = timed(device, lambda: made.backward(gradient))
    return {"forward": forward, "backward": backward}


def timed(device: str, run: Callable[[], Any]) -> tuple[float, Any]:
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    result = run()
    wait()
    return time.perf_counter() - began, result


if __name__ == "__main__":
    raise SystemExit(main())
