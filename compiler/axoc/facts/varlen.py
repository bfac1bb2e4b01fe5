"""What keeps a packed row's documents apart: torch's kernels (torch/nn/attention/varlen.py, flash attention 2) or flash
attention 4's.

tests/contract holds these figures against the runtime's own table.
"""

from __future__ import annotations

from typing import Final

from axoc.ir.facts import AcceleratorFacts, ModelFacts

FLASH_4: Final = "flash_attention_4"
CAPABILITY: Final = (8, 0)
FLASH_4_CAPABILITY: Final = (9, 0)
"""The least (flash_attn/cute/interface.py), and the one it was measured on: newer ones are left to the user."""
HEAD_MULTIPLE: Final = 8
HEAD_MAX: Final = 256
DROPS_SCORES: Final = ("gpt2",)
"""Families whose published configs drop attention's scores out."""
OWN_ATTENTION: Final = ("falcon",)
"""Families whose modelling code calls attention itself, and takes no other (modeling_falcon.py)."""


def obstacles(model: ModelFacts, accelerator: AcceleratorFacts, compute_dtype: str) -> list[str]:
    """Why the kernel cannot keep this model's documents apart; nothing where it can. In words."""
    found = []
    if accelerator.vendor != "nvidia" or accelerator.compute_capability < CAPABILITY:
        found.append(f"its kernels need an Ampere GPU or newer, and this is {accelerator.name}")
    if compute_dtype not in ("bfloat16", "float16"):
        found.append(f"its kernels compute in 16 bits, and this trains in {compute_dtype}")
    if model.head_dim % HEAD_MULTIPLE or model.head_dim > HEAD_MAX:
        found.append(
            f"its kernels take heads of a multiple of {HEAD_MULTIPLE} up to {HEAD_MAX}, and these have {model.head_dim}"
        )
    if model.attention_softcapping is not None:
        found.append(f"it cannot cap scores, as {model.family} does")
    if model.mla is not None:
        found.append("its kernels take keys and values of one size, and latent attention has two")
    if model.family in DROPS_SCORES:
        found.append(f"it has no dropout, which {model.family} trains with")
    if model.family in OWN_ATTENTION:
        found.append(f"{model.family}'s code takes no attention but its own")
    return found


def flash_4_serves(model: ModelFacts, accelerator: AcceleratorFacts, compute_dtype: str) -> bool:
    """Whether flash attention 4 is taken for packed rows where nothing is said: it does what torch's kernels do, in half the time."""
    measured = accelerator.compute_capability == FLASH_4_CAPABILITY
    return measured and not obstacles(model, accelerator, compute_dtype)
