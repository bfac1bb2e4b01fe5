"""The optimizer a job names, with the states and temporaries it has on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job

MIN_8BIT: Final = 4096
"""Smaller tensors keep fp32 states (bitsandbytes/optim/optimizer.py, min_8bit_size)."""
BLOCK: Final = 256
"""Elements that share one scale (the same, init_state)."""


def optimizer_for(job: Job, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Raises RuntimeFailure for an optimizer whose memory is not modelled."""
    make = MAKERS.get(job.training.optimizer)
    if make is None:
        known = ", ".join(MAKERS)
        fix = f"trace with one of {known}"
        raise RuntimeFailure(f"the memory of {job.training.optimizer} cannot be traced yet", EXIT_INPUTS, fix)
    return make(job, model)


def trained(model: torch.nn.Module) -> list[Any]:
    return [p for p in model.parameters() if p.requires_grad]


NOT_DECAYING: Final = (r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)")
"""transformers/trainer.py, get_decay_parameter_names, which is seconds slower to import than all that is needed here."""


def groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Weights that decay, then norms and biases, as the Trainer groups them: steps are taken in this order."""
    from transformers.trainer_pt_utils import get_parameter_names

    decaying = set(get_parameter_names(model, [torch.nn.LayerNorm], list(NOT_DECAYING)))
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    split = [[p for n, p in named if n in decaying], [p for n, p in named if n not in decaying]]
    return [{"params": parameters} for parameters in split if parameters]


def fused_adamw(job: Job, model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups(model), lr=job.training.learning_rate, fused=True)


def foreach_adamw(job: Job, model: torch.nn.Module) -> torch.optim.Optimizer:
    """On a GPU torch takes foreach unless told otherwise (torch/optim/optimizer.py, _default_to_fused_or_foreach)."""
    return torch.optim.AdamW(groups(model), lr=job.training.learning_rate, foreach=True)


def foreach_sgd(job: Job, model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups(model), lr=job.training.learning_rate, foreach=True)


def adafactor(job: Job, model: torch.nn.Module) -> torch.optim.Optimizer:
    """transformers' own, with the arguments that its Trainer passes (trainer_optimizer.py)."""
    from transformers.optimization import Adafactor

    made: torch.optim.Optimizer = Adafactor(
        groups(model), lr=job.training.learning_rate, scale_parameter=False, relative_step=False
    )
    return made


class EightBitAdamW(torch.optim.Optimizer):
    """bitsandbytes' states: a byte and a shared scale for each moment. The kernel updates in place, without
    temporaries. Embeddings keep fp32 states (transformers/trainer.py, create_optimizer)."""

    def __init__(self, parameters: Iterable[Any], embeddings: set[int]) -> None:
        super().__init__(parameters, {})
        self.embeddings = embeddings

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and not self.state[p]:
                    self._begin(p)

    def _begin(self, p: Any) -> None:
        state = self.state[p]
        whole = p.numel() < MIN_8BIT or id(p) in self.embeddings
        for name in ("state1", "state2"):
            state[name] = torch.zeros_like(p, dtype=torch.float32 if whole else torch.uint8)
        if not whole:
            for name in ("absmax1", "absmax2"):
                state[name] = torch.zeros(-(-p.numel() // BLOCK), dtype=torch.float32)


def eight_bit_adamw(job: Job, model: torch.nn.Module) -> torch.optim.Optimizer:
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    return EightBitAdamW(groups(model), embeddings)


MAKERS: Final[dict[str, Callable[[Job, torch.nn.Module], torch.optim.Optimizer]]] = {
    "adamw_torch_fused": fused_adamw,
    "adamw_torch": foreach_adamw,
    "adamw_bnb_8bit": eight_bit_adamw,
    "adafactor": adafactor,
    "sgd": foreach_sgd,
}
