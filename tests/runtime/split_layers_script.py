"""Two gloo ranks: gradients of a model whose layers are split, against those of the whole one. Exits with 1 on a difference."""

from __future__ import annotations

import copy
import os
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


def differences(name: str, mesh: Any) -> dict[str, float]:
    """By parameter, the largest of one model's; a parameter without a gradient is infinitely far off."""
    torch.manual_seed(0)
    whole = MODELS[name]()
    split = copy.deepcopy(whole)
    split.tie_weights()
    split_layers(split, mesh)
    assert all(hasattr(p, "_local_tensor") for p in split.parameters())
    expected, found = gradients(whole), gradients(split)
    far = {n: float((g - found[n]).abs().max()) if n in found else float("inf") for n, g in expected.items()}
    return {f"{name}: {n}": d for n, d in far.items() if d > 1e-5}


def main() -> int:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("tp",))["tp"]
    different = {n: d for name in MODELS for n, d in differences(name, mesh).items()}
    if different:
        print(f"gradients differ: {different}", file=sys.stderr)
    dist.destroy_process_group()
    return int(bool(different))


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # gloo's threads can end the interpreter while it winds up
