"""Models of no family of axoc's: where their blocks and linear layers are is found in the model itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import nn

from axoc_runtime.attention import implementation_of
from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job

GENERIC: Final = "generic"
SHARDED: Final = "FSDP"
"""What FSDP2 puts before a class's name."""
STATE_SPACE: Final = "A_log"
"""A parameter that every Mamba mixer has. Its kernels read weights themselves and pass by what PEFT puts around a layer; only
the first projection is always called (modeling_mamba.py, cuda_kernels_forward; peft/tuners/tuners_utils.py,
_check_lora_target_modules_mamba)."""
FIRST_PROJECTION: Final = "in_proj"
VOCABULARY: Final = {"embed_tokens": "get_input_embeddings", "lm_head": "get_output_embeddings"}
"""Names that a spec may use for the vocabulary's matrices, whatever the model calls them."""

LENGTH: Final = 8
LEAK: Final = {torch.float32: 1e-3}
ROUGH_LEAK: Final = 2e-2
"""Of the logits' norm: beyond rounding, in float32 and in 16 bits. A causal model's do not differ but where experts group
tokens otherwise."""


def unknown(job: Job) -> bool:
    return job.model.family == GENERIC


def blocks_of(model: Any) -> list[Any]:
    """The repeated blocks, in order: the outermost lists of modules of the classes that the architecture names as whole
    (``_no_split_modules``); where it names none, the largest list."""
    lists = [found for found in _outermost(model) if len(found)]
    named = set(getattr(model, "_no_split_modules", None) or ())
    whole = [found for found in lists if all(type(m).__name__.removeprefix(SHARDED) in named for m in found)]
    chosen = whole or sorted(lists, key=_size)[-1:]
    return [block for found in chosen for block in found]


def _outermost(module: Any) -> Iterator[Any]:
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from _outermost(child)


def _size(module: Any) -> int:
    from axoc_runtime.strategies.promised import full_size

    return sum(full_size(p) for p in module.parameters())


def linear_paths(model: Any) -> list[str]:
    """All linear layers but the head, by their whole paths. Experts that are kept as one parameter are none, nor are layers
    with a forward of their own, as routers have."""
    head = model.get_output_embeddings()
    modules = dict(model.named_modules())
    mixers = tuple(f"{path}." for path, m in modules.items() if hasattr(m, STATE_SPACE))
    return [
        path
        for path, m in modules.items()
        if _plain(m) and m is not head and (not path.startswith(mixers) or path.endswith(f".{FIRST_PROJECTION}"))
    ]


def _plain(module: Any) -> bool:
    from transformers.pytorch_utils import Conv1D

    quantized = isinstance(module, nn.Linear) and type(module).__module__.startswith("bitsandbytes")
    return type(module) in (nn.Linear, Conv1D) or quantized


def own_names(model: Any, names: tuple[str, ...]) -> list[str]:
    """``embed_tokens`` and ``lm_head`` as this model calls them; other names stay."""
    paths = {id(m): path for path, m in model.named_modules()}

    def own(name: str) -> str:
        module = getattr(model, VOCABULARY[name])() if name in VOCABULARY else None
        return name if module is None else paths[id(module)].rpartition(".")[2]

    return [own(name) for name in names]


def attention_of(job: Job) -> str | None:
    """transformers' name of the planned attention. None, its own choice, of an architecture that may not have SDPA."""
    found = implementation_of(job)
    return None if unknown(job) and found == "sdpa" else found


@torch.no_grad()
def require_causal(model: Any, wrapped: Any, device: torch.device) -> None:
    """What is said of a token may not depend on those after it: else the model is given what it is to predict, and learns
    nothing. ``wrapped``: what a strategy has put around it. Raises RuntimeFailure."""
    words = int(model.config.get_text_config().vocab_size)
    first = torch.arange(LENGTH, device=device)[None] % words
    second = first.clone()
    second[0, -1] = words - 1
    was_training = wrapped.training
    wrapped.eval()
    mask = torch.ones_like(first)  # as batches of rows have one
    one, other = (
        wrapped(input_ids=ids, attention_mask=mask).logits[0, : LENGTH // 2].float() for ids in (first, second)
    )
    wrapped.train(was_training)
    bound = LEAK.get(next(model.parameters()).dtype, ROUGH_LEAK)
    if float((one - other).norm()) > bound * float(one.norm()):
        name = type(getattr(model, "get_base_model", lambda: model)()).__name__
        message = f"{name} reads the tokens after the one that it predicts: it is no causal language model"
        fix = (
            "name a model that was made to continue text; where this one was, set model.attention: eager and plan again"
        )
        raise RuntimeFailure(message, EXIT_INPUTS, fix)
