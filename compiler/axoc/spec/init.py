"""The starter spec: what to change first, with the rest as comments."""

from __future__ import annotations

from typing import Final

_STARTER: Final = """\
# For help in an editor: axoc schema > spec.schema.json
# yaml-language-server: $schema=spec.schema.json
version: 1

model:
  id: Qwen/Qwen2.5-0.5B         # a hub id or a local folder
  # revision: ...               # pin a commit: the hub's main branch moves
  # dtype: bfloat16             # of the trained weights: float32, bfloat16 or float16
  # quantization: nf4           # 4-bit frozen weights, for a LoRA on a small GPU

adapter: lora                   # none trains all weights
# adapter: {type: lora, rank: 16, alpha: 32, targets: all-linear}

dataset:
  path: data/train.jsonl        # a file, folder, glob, hub id or address
  # type: auto                  # the format; auto looks at the first rows
  validation_split: 0.1         # held out, for perplexity before and after
  max_seq_length: 2048          # tokens in a row: memory grows with it

training:
  epochs: 1                     # or max_steps
  learning_rate: 2.0e-4
  # global_batch_size: 64       # sequences in an optimizer step; auto by default
  # early_stopping_patience: 3

# distributed:                  # all of it is chosen where it is not written
#   type: auto                  # ddp, fsdp, zero1, zero2, zero3
#   gpu_count: 8                # default: all of the inventory
#   memory_budget_per_gpu_gb: 80

# samples:
#   prompts: ["What is a declarative compiler?"]   # asked before and after

output_dir: ./axoc-output
"""


def starter_spec() -> str:
    """A commented spec for `axoc init`, ready to be planned."""
    return _STARTER
