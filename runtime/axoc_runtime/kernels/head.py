"""A causal model that makes its loss of hidden states and the head's weight, and no logits: ``kernels: chunked``."""

from __future__ import annotations

from types import MethodType
from typing import Any, Final

import torch
from torch.nn import functional

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job
from axoc_runtime.kernels.chunked_loss import IGNORED, linear_cross_entropy

SCALES: Final = ("logit_scale", "logits_scaling", "lm_head_multiplier")
"""Of configurations whose logits are multiplied with more than the head."""


def use_chunked_loss(job: Job, model: Any) -> None:
    """From now on ``model``, given labels, returns a loss and nothing else. Raises RuntimeFailure where it computes its loss
    in a way of its own."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    head, config = trained_head(causal), causal.config.get_text_config()
    _refuse(job, head, config)
    head.forward = MethodType(_head_forward, head)
    head.loss_options = {
        "softcapping": getattr(config, "final_logit_softcapping", None),
        "compiled": job.model.compile and job.distributed.device == "cuda",
    }
    causal.forward_with_logits = causal.forward
    causal.forward = MethodType(_forward, causal)


def trained_head(causal: Any) -> Any:
    """The head itself; of one that is trained whole beside an adapter the copy that learns."""
    head = causal.get_output_embeddings()
    saved = getattr(head, "modules_to_save", None)
    return head if saved is None else saved[head.active_adapters[0]]


def _refuse(job: Job, head: Any, config: Any) -> None:
    fix = "set model.kernels: none and plan again"
    scales = [name for name in SCALES if getattr(config, name, None) not in (None, 1, 1.0)]
    why = ""
    if not isinstance(head, torch.nn.Linear) or hasattr(head, "base_layer"):
        why = f"the model's head is {type(head).__name__}, no plain linear layer"
    elif scales:
        why = f"the model scales its logits ({', '.join(scales)})"
    elif getattr(config, "output_router_logits", False):
        why = "the model adds a loss of its router"
    elif job.distributed.tensor_parallel > 1:
        why = "tensor parallelism splits the head"
    if why:
        raise RuntimeFailure(f"kernels chunked cannot make the loss: {why}", EXIT_INPUTS, fix)


def _forward(self: Any, input_ids: Any = None, labels: Any = None, num_items_in_batch: Any = None, **more: Any) -> Any:
    """In the place of a causal model's. Labels are those of the same position: the next token is what is predicted."""
    if labels is None:
        return self.forward_with_logits(input_ids=input_ids, **more)
    from transformers.modeling_outputs import CausalLMOutputWithPast

    decoder = getattr(self, self.base_model_prefix)
    hidden = decoder(input_ids=input_ids, **more).last_hidden_state
    targets = functional.pad(labels, (0, 1), value=IGNORED)[..., 1:]
    # by a call of the head, so that what shards its weight sees to it that it is whole
    loss = self.get_output_embeddings()(hidden, targets=targets, items=num_items_in_batch)
    return CausalLMOutputWithPast(loss=loss)


def _head_forward(self: Any, hidden: torch.Tensor, targets: Any = None, items: Any = None) -> torch.Tensor:
    if targets is None:
        return functional.linear(hidden, self.weight, self.bias)
    rows, wanted = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1).to(hidden.device)
    return linear_cross_entropy(rows, self.weight, wanted, bias=self.bias, items=items, **self.loss_options)
