"""Blocks compiled one by one: one graph for all of a kind, the same losses and gradients, and weights of the same names."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from axoc_runtime.attention.register import register_varlen
from axoc_runtime.kernels.compiled import compile_blocks
from axoc_runtime.models.adapter import add_adapter
from axoc_runtime.models.load import set_checkpointing

from runtime.jobs import LORA, make_job
from runtime.packs import assert_same, documents, packed, tiny, together

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs a C++ compiler"),
    pytest.mark.skipif(" " in sys.prefix, reason="torch gives the compiler its own folder unquoted"),
]
BLOCKS = {"llama": "LlamaDecoderLayer", "gemma2": "Gemma2DecoderLayer"}


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    register_varlen()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def made(tmp_path: Path, kind: str, *, compiled: bool, adapted: bool = False, checkpointing: str = "none") -> Any:
    job = make_job(
        tmp_path, model__decoder_block=BLOCKS[kind], model__compile=compiled, dataset__packing=True,
        training__gradient_checkpointing=checkpointing, training__checkpointed_layers=1,
        adapter=LORA | {"casts_inputs": False} if adapted else None,
    )  # fmt: skip
    model = tiny(kind, "axoc_varlen", num_hidden_layers=4)
    torch.manual_seed(1)
    model = add_adapter(job, model) if adapted else model
    if compiled:
        compile_blocks(job, model)
    set_checkpointing(job, model)
    return model.train()


@pytest.mark.parametrize(
    ("kind", "adapted", "checkpointing"),
    [("llama", False, "selective"), ("llama", True, "full"), ("gemma2", False, "none")],
)
def test_compiled_blocks_learn_the_same(tmp_path: Path, kind: str, adapted: bool, checkpointing: str) -> None:
    plain = made(tmp_path, kind, compiled=False, adapted=adapted, checkpointing=checkpointing)
    model = made(tmp_path, kind, compiled=True, adapted=adapted, checkpointing=checkpointing)
    assert list(model.state_dict()) == list(plain.state_dict())
    batch = packed(documents(9, 14, 5), 32)
    assert_same(together(plain, batch), together(model, batch), relative=1e-4)
    assert graphs() > 0, "nothing was compiled"


def test_all_blocks_and_all_packs_share_their_graphs(tmp_path: Path) -> None:
    """However many blocks there are, and documents in a pack."""
    model = made(tmp_path, "llama", compiled=True)
    together(model, packed(documents(9, 14, 5), 32))
    first = graphs()
    assert 0 < first <= 4
    for lengths in ((30,), (4, 4, 4, 4, 4, 4), (31, 1), (9, 14, 5)):
        together(model, packed(documents(*lengths), 32))
    assert graphs() == first
