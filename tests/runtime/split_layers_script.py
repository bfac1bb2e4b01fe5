"""Two gloo ranks: gradients of a model whose layers are split, against those of the whole one. Exits with 1 on a difference."""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch
import torch.distributed as dist
from axoc_runtime.strategies.tensor import split_layers
from torch.distributed.device_mesh import init_device_mesh
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, Qwen3Config, Qwen3ForCausalLM

SMALL = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "num_hidden_layers": 2}
MODELS = {
    "tied": lambda: Qwen3ForCausalLM(
        Qwen3Config(**SMALL, vocab_size=64, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True)
    ),
    "odd": lambda: Qwen3ForCausalLM(
        Qwen3Config(**SMALL, vocab_size=63, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True)
    ),
    "biases": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL, vocab_size=64, tie_word_embeddings=False)),
}


def gradients(model: Any) -> dict[str, torch.Tensor]:
    tokens = torch.arange(10).unsqueeze(0)
    model(input_ids=tokens, labels=tokens).loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: g.full_tensor() if hasattr(g, "full_tensor") else g for name, g in found.items()}


def main(name: str) -> int:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    whole = MODELS[name]()
    split = copy.deepcopy(whole)
    split.tie_weights()
    split_layers(split, init_device_mesh("cpu", (2,), mesh_dim_names=("tp",))["tp"])
    assert all(hasattr(p, "_local_tensor") for p in split.parameters())
    expected, found = gradients(whole), gradients(split)
    far = {n: float((expected[n] - found[n]).abs().max()) for n in expected}
    different = {n: d for n, d in far.items() if d > 1e-5}
    if different:
        print(f"gradients differ: {different}", file=sys.stderr)
    dist.destroy_process_group()
    return int(bool(different) or expected.keys() != found.keys())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
