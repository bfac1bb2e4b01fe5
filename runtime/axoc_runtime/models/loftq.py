"""LoftQ over weights that bitsandbytes stores in four bits (arXiv 2310.08659, one round): the adapter begins as the best
low-rank fit of what storage lost. PEFT's own (utils/loftq_utils.py) asks for CUDA, and leaves the adapter's scale out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job

OVERSAMPLED: Final = 8
"""Columns beyond the rank, and rounds, of the randomized decomposition."""
ROUNDS: Final = 4


@torch.no_grad()
def make_up_for_storage(job: Job, model: Any) -> None:
    """Raises RuntimeFailure where a weight is in none of the model's files."""
    import bitsandbytes
    from peft.tuners.lora.bnb import Linear4bit

    exact = Weights(folder_of(job))
    for name, layer in model.get_base_model().named_modules():
        if not isinstance(layer, Linear4bit):
            continue
        stored = layer.base_layer.weight
        whole = bitsandbytes.functional.dequantize_4bit(stored.data, stored.quant_state).float()
        published = exact.read(f"{name}.weight").to(whole)
        lost = (published if published.shape == whole.shape else published.t()) - whole
        first, second = pair_of(lost / layer.scaling["default"], layer.r["default"], job.training.seed)
        layer.lora_A["default"].weight.data.copy_(first)
        layer.lora_B["default"].weight.data.copy_(second)


def pair_of(matrix: torch.Tensor, rank: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(A, B) with B A the best fit of this rank, about: the same for the same seed."""
    with torch.random.fork_rng(devices=[matrix.device] if matrix.is_cuda else []):
        torch.manual_seed(seed)
        left, values, right = torch.svd_lowrank(matrix, q=min(rank + OVERSAMPLED, *matrix.shape), niter=ROUNDS)
    roots = values[:rank].sqrt()
    return roots[:, None] * right[:, :rank].t(), left[:, :rank] * roots


class Weights:
    """Tensors of a model's safetensors by name, each read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = folder / "model.safetensors.index.json"
        if index.is_file():
            self.files: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        else:
            self.files = {name: path.name for path in sorted(folder.glob("*.safetensors")) for name in _names(path)}

    def read(self, name: str) -> torch.Tensor:
        """By its whole name, or by the end of it where the files leave out the part of the causal model."""
        from safetensors import safe_open

        found = name if name in self.files else next((n for n in self.files if name.endswith(f".{n}")), None)
        if found is None:
            fix = "set adapter.init: default, or name a folder or a hub id whose safetensors hold the exact weights"
            raise RuntimeFailure(f"adapter.init loftq: no safetensors in {self.folder} hold {name}", EXIT_INPUTS, fix)
        with safe_open(self.folder / self.files[found], framework="pt") as weights:
            tensor: torch.Tensor = weights.get_tensor(found)
        return tensor


def _names(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as weights:
        return list(weights.keys())


def folder_of(job: Job) -> Path:
    """Where the model's files lie: loading it has brought those of a hub here."""
    source = job.model_source()
    if Path(source).is_dir():
        return Path(source)
    from transformers.utils import cached_file

    revision = job.model.revision or "main"
    return Path(str(cached_file(source, "config.json", revision=revision, local_files_only=True))).parent
