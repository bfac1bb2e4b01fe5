"""The starter spec: what to change first, with the rest as comments."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

ADAPTERS: Final = ("lora", "qlora", "none")
PLAIN: Final = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._/+-]*")
"""Texts that YAML reads as themselves; numbers, dates and words like yes or null are not among those that begin with a letter
and hold a slash or a dot, and all others are quoted."""

_STARTER: Final = """\
# For help in an editor: axoc schema > spec.schema.json
# yaml-language-server: $schema=spec.schema.json
version: 1

model:
  id: @MODEL@# a hub id or a local folder
  # revision: ...               # pin a commit: the hub's main branch moves
  # dtype: bfloat16             # of the trained weights: float32, bfloat16 or float16
@QUANTIZATION@

@ADAPTER@
# adapter: {type: lora, rank: 16, alpha: 32, targets: all-linear}

dataset:
  path: @DATA@# a file, folder, glob, hub id or address
  # type: auto                  # the format; auto looks at the first rows
  validation_split: 0.1         # held out, for perplexity before and after
  max_seq_length: @LENGTH@# tokens in a row: memory grows with it

training:
  epochs: 1                     # or max_steps
  learning_rate: @RATE@# about 1e-5 for all weights, ten times as much for an adapter
  # global_batch_size: 64       # sequences in an optimizer step; auto by default
  # early_stopping_patience: 3

# distributed:                  # all of it is chosen where it is not written
#   type: auto                  # ddp, fsdp, zero1, zero2, zero3
#   gpu_count: 8                # default: all of the inventory
#   memory_budget_per_gpu_gb: 80

# samples:
#   prompts: ["What is a declarative compiler?"]   # asked before and after

@INVENTORY@output_dir: ./axoc-output
"""
COLUMN: Final = 32
"""Where comments stand."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What `axoc init` asks."""

    model: str = "Qwen/Qwen2.5-0.5B"
    data: str = "data/train.jsonl"
    adapter: str = "lora"
    """lora | qlora | none"""
    max_seq_length: int = 2048
    inventory: str | None = None
    """A name, or a file."""


def starter_spec(answers: Answers | None = None) -> str:
    """A commented spec for `axoc init`, ready to be planned. Answers are data: quoted where YAML would read more into them."""
    given = answers or Answers()
    inventory = f"inventory: {scalar(given.inventory)}\n" if given.inventory else ""
    filled = {
        "MODEL": scalar(given.model),
        "DATA": scalar(given.data),
        "LENGTH": str(given.max_seq_length),
        "RATE": "1.0e-5" if given.adapter == "none" else "2.0e-4",
        "QUANTIZATION": _quantization(given.adapter),
        "ADAPTER": _adapter(given.adapter),
        "INVENTORY": inventory,
    }
    return "\n".join(_filled(line, filled) for line in _STARTER.split("\n"))


def scalar(text: str) -> str:
    """Bare where that is safe, else in double quotes, as JSON writes it."""
    safe = PLAIN.fullmatch(text) and re.search(r"[A-Za-z]", text) and re.search(r"[/.-]", text)
    return text if safe and not re.fullmatch(r"[\d.eE+_-]+", text) else json.dumps(text, ensure_ascii=False)


def _filled(line: str, filled: dict[str, str]) -> str:
    found = re.search("@([A-Z]+)@", line)
    if found is None:
        return line
    before, after = line[: found.start()], line[found.end() :]
    value = filled[found[1]]
    return (
        (before + value).ljust(COLUMN) + (" " if len(before + value) >= COLUMN else "") + after
        if after.startswith("#")
        else before + value + after
    )


def _quantization(adapter: str) -> str:
    comment = "# 4-bit frozen weights, for a LoRA on a small GPU"
    return (
        f"  quantization: nf4             {comment}"
        if adapter == "qlora"
        else f"  # quantization: nf4           {comment}"
    )


def _adapter(adapter: str) -> str:
    if adapter == "none":
        return "adapter: none                   # all weights are trained; lora trains an adapter"
    return "adapter: lora                   # none trains all weights"
