"""Packed batches as the collator hands them to the model, made by hand from documents, and tiny models to feed them to."""

from __future__ import annotations

from typing import Any

import torch

IGNORED = -100
TINY: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "pad_token_id": 0,
}  # fmt: skip


def tiny(kind: str, implementation: str, **changes: Any) -> Any:
    """A causal model of that type with the same weights every time."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **(TINY | changes))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation, dtype=torch.float32)
    model.config.use_cache = False
    return model


def documents(*lengths: int, learned_from: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(ids, labels) of each; the first tokens are a question, from which nothing is learned."""
    draw = torch.Generator().manual_seed(7)
    made = []
    for length in lengths:
        ids = torch.randint(1, 97, (length,), generator=draw)
        labels = ids.clone()
        labels[: min(learned_from, length)] = IGNORED
        made.append((ids, labels))
    return made


def packed(found: list[tuple[torch.Tensor, torch.Tensor]], tokens: int) -> dict[str, Any]:
    """One row of ``tokens``; what is left over is a document of padding."""
    left = tokens - sum(len(ids) for ids, _ in found)
    padding = [(torch.zeros(left, dtype=torch.long), torch.full((left,), IGNORED))] if left else []
    every = [*found, *padding]
    ends = torch.tensor([0, *(len(ids) for ids, _ in every)]).cumsum(0).to(torch.int32)
    return {
        "input_ids": torch.cat([ids for ids, _ in every])[None],
        "labels": torch.cat([labels for _, labels in every])[None],
        "position_ids": torch.cat([torch.arange(len(ids)) for ids, _ in every])[None],
        "cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": tokens, "max_length_k": tokens,
    }  # fmt: skip


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def apart(model: Any, found: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss a learned token and gradients, document by document, each in a row of its own."""
    model.zero_grad()
    learned = sum(int((labels[1:] != IGNORED).sum()) for _, labels in found)
    total = 0.0
    for ids, labels in found:
        loss = model(input_ids=ids[None], labels=labels[None], num_items_in_batch=torch.tensor(learned)).loss
        loss.backward()
        total += float(loss.detach())
    return total, gradients(model)


def together(model: Any, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """The same of a packed batch."""
    model.zero_grad()
    learned = (batch["labels"] != IGNORED).sum()
    loss = model(**batch, num_items_in_batch=learned).loss
    loss.backward()
    return float(loss.detach()), gradients(model)


def assert_same(
    one: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]], relative: float = 1e-5
) -> None:
    """Losses, and every gradient relative to its own largest value."""
    assert abs(one[0] - other[0]) <= relative * abs(one[0])
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        difference = (gradient - other[1][name]).abs().max()
        assert difference <= relative * gradient.abs().max().clamp(min=1e-12), name
