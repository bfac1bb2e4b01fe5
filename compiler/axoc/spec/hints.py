"""Did you mean: the nearest key or word, and names people bring from other trainers."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import Final

_LONGEST_TYPO: Final = 60
"""Longer words are not compared: difflib's time grows with the square."""

ELSEWHERE: Final = {
    "base_model": "model.id",
    "model_name_or_path": "model.id",
    "hf_model": "model.id",
    "torch_dtype": "model.dtype",
    "attn_implementation": "model.attention",
    "load_in_4bit": "model.quantization: nf4",
    "load_in_8bit": "model.quantization: int8",
    "r": "adapter.rank",
    "lora_r": "adapter.rank",
    "lora_alpha": "adapter.alpha",
    "lora_dropout": "adapter.dropout",
    "lora_target_modules": "adapter.targets",
    "target_modules": "adapter.targets",
    "datasets": "dataset (a list is allowed)",
    "data": "dataset",
    "val_set_size": "dataset.validation_split",
    "sequence_len": "dataset.max_seq_length",
    "max_length": "dataset.max_seq_length",
    "cutoff_len": "dataset.max_seq_length",
    "sample_packing": "dataset.packing",
    "num_epochs": "training.epochs",
    "num_train_epochs": "training.epochs",
    "lr": "training.learning_rate",
    "batch_size": "training.global_batch_size",
    "per_device_train_batch_size": "training.micro_batch_size",
    "optim": "training.optimizer",
    "scheduler": "training.lr_scheduler",
    "lr_scheduler_type": "training.lr_scheduler",
    "warmup_steps": "training.warmup_ratio (a share of all steps)",
    "bf16": "distributed.mixed_precision: bf16",
    "fp16": "distributed.mixed_precision: fp16",
    "deepspeed": "distributed.type: zero2 or zero3",
    "strategy": "distributed.type",
    "tensor_parallel_size": "distributed.model_parallel_size",
    "num_gpus": "distributed.gpu_count",
    "report_to": "tracking",
    "metrics": "eval_metrics",
}
"""Keys of axolotl, LLaMA-Factory and the transformers Trainer, and where a spec has them."""


def nearest(word: str, known: Collection[str]) -> str | None:
    """The known name a typo most likely stands for; upper and lower case are the same."""
    if not 0 < len(word) <= _LONGEST_TYPO:
        return None
    by_case = {name.lower(): name for name in known}
    close = get_close_matches(word.lower().replace("-", "_"), by_case, n=1, cutoff=0.6)
    return by_case[close[0]] if close else None


def key_fix(name: str, known: Collection[str], everywhere: Collection[str]) -> str:
    """What to write instead of an unknown key. ``everywhere``: the dotted names of all fields of the spec."""
    close = nearest(name, known)
    if close:
        return f"did you mean {close}?"
    if name in ELSEWHERE:
        return f"a spec has it as {ELSEWHERE[name]}"
    moved = [dotted for dotted in everywhere if dotted.rpartition(".")[2] == name]
    if moved:
        return f"move it: it is {moved[0]}"
    return "remove it, or see the keys that axoc schema lists"


def word_fix(word: str, known: Collection[str], special: dict[str, str]) -> str | None:
    """What to write instead of an unknown word; ``special`` are words that other tools use for the same."""
    close = special.get(word.lower()) or nearest(word, known)
    return f"did you mean {close}?" if close and " " not in close else close
