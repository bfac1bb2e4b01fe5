"""Two gloo ranks: gradients of layers in float8 under DDP and FSDP2, against those of one process. Exits with 1 on a difference.

Both ranks have the same batch, so that the mean of their gradients is each one's own. They are forked once all is imported."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from axoc_runtime.kernels.float8 import Float8Linear
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import LlamaConfig, LlamaForCausalLM

SMALL = {
    "hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 48, "num_hidden_layers": 2,
    "vocab_size": 64, "tie_word_embeddings": True,
}  # fmt: skip


def model(converted: bool = True) -> Any:
    torch.manual_seed(0)
    made = LlamaForCausalLM(LlamaConfig(**SMALL)).bfloat16()
    for layer in made.model.layers.modules() if converted else ():
        if type(layer) is torch.nn.Linear:
            layer.__class__ = Float8Linear
    return made


def sharded() -> Any:
    made = model()
    for block in made.model.layers:
        fully_shard(block)
    return fully_shard(made)


def gradients(made: Any) -> dict[str, torch.Tensor]:
    tokens = torch.arange(16).unsqueeze(0)
    made(input_ids=tokens, labels=tokens).loss.backward()
    found = {name.removeprefix("module."): p.grad for name, p in made.named_parameters()}
    return {name: g.full_tensor() if isinstance(g, DTensor) else g for name, g in found.items()}


def wrong(name: str, found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> list[str]:
    if found.keys() != expected.keys():
        return [f"{name}: names differ"]
    return [f"{name}: {n}" for n, g in expected.items() if not torch.allclose(g, found[n], rtol=1e-2, atol=1e-6)]


def main() -> int:
    alone, split = gradients(model()), sharded()
    problems = wrong("fsdp", gradients(split), alone) + wrong("ddp", gradients(DistributedDataParallel(model())), alone)
    if not all(isinstance(p, DTensor) and p.to_local().shape != p.shape for p in split.parameters()):
        problems.append("fsdp: not sharded")
    if not wrong("bf16", gradients(model(converted=False)), alone):
        problems.append("nothing was rounded to float8")
    if problems:
        print(problems, file=sys.stderr)
    return int(bool(problems))


def forked(rank: int, meeting: str) -> int:
    """The process of a rank."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        options = {"rank": rank, "world_size": 2, "timeout": timedelta(seconds=60)}
        dist.init_process_group("gloo", init_method=f"file://{meeting}", **options)
        code = main()
    except Exception:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        ranks = [forked(rank, f"{folder}/meeting") for rank in range(2)]
        ended = [os.waitpid(rank, 0)[1] for rank in ranks]
    sys.exit(int(any(ended)))
