"""Recomputation happens in the planned blocks and in no other: forward passes are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from axoc_runtime.assertions import _checkpointing
from axoc_runtime.models.load import decoder_blocks, set_checkpointing
from axoc_runtime.models.recompute import base_parameters

from runtime.jobs import make_job

SMALL = {"vocab_size": 64, "hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SMALL, intermediate_size=64, num_hidden_layers=4))


def mixed() -> Any:
    """Blocks of two sizes: the second is dense, the others have experts."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(
        **SMALL, intermediate_size=64, moe_intermediate_size=64, num_experts=4, num_experts_per_tok=2, head_dim=16,
        num_hidden_layers=3, mlp_only_layers=[1],
    )  # fmt: skip
    return Qwen3MoeForCausalLM(config)


def forward_passes(model: Any, blocks: list[Any]) -> list[int]:
    """Of each block's attention, in a forward and a backward."""
    counts = [0] * len(blocks)
    for index, block in enumerate(blocks):

        def count(*_: Any, index: int = index) -> None:
            counts[index] += 1

        block.self_attn.register_forward_pre_hook(count)
    model.train()
    tokens = torch.arange(8).unsqueeze(0)
    model(input_ids=tokens, labels=tokens).loss.backward()
    return counts


@pytest.mark.parametrize(
    ("mode", "layers", "expected"),
    [("none", 0, [1, 1, 1, 1]), ("selective", 1, [2, 1, 1, 1]), ("selective", 3, [2, 2, 2, 1]), ("full", 4, [2] * 4)],
)
def test_the_planned_blocks_run_forward_twice(tmp_path: Path, mode: str, layers: int, expected: list[int]) -> None:
    job = make_job(tmp_path, training__gradient_checkpointing=mode, training__checkpointed_layers=layers)
    model = llama()
    set_checkpointing(job, model)
    assert forward_passes(model, decoder_blocks(job, model)) == expected


def test_blocks_above_a_size_run_forward_twice(tmp_path: Path) -> None:
    model = mixed()
    job = make_job(
        tmp_path, model__decoder_block="Qwen3MoeDecoderLayer", training__gradient_checkpointing="selective",
        training__checkpointed_layers=2, training__checkpoint_above_parameters=12_000,
    )  # fmt: skip
    blocks = decoder_blocks(job, model)
    assert [base_parameters(b) > 12_000 for b in blocks] == [True, False, True]
    set_checkpointing(job, model)
    assert forward_passes(model, blocks) == [2, 1, 2]


def test_a_block_that_recomputes_unplanned_is_found(tmp_path: Path) -> None:
    job = make_job(tmp_path, training__gradient_checkpointing="selective", training__checkpointed_layers=2)
    model = llama()
    set_checkpointing(job, model)
    decoder_blocks(job, model)[1].gradient_checkpointing = False
    decoder_blocks(job, model)[3].gradient_checkpointing = True

    class Wrapping:
        pass

    wrapping: Any = Wrapping()
    wrapping.model = model
    assert ("blocks that recompute", [0, 1], [0, 3]) in list(_checkpointing(job, wrapping))
