"""Compiled blocks: what torch really saves of them, what a checkpoint keeps, and the program that Inductor writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from axoc_runtime.models.adapter import add_adapter
from axoc_runtime.models.load import decoder_blocks, set_checkpointing
from axoc_runtime.trace.compiled import compile_blocks, compiling
from axoc_runtime.trace.cuda_as_cpu import as_on_cuda
from axoc_runtime.trace.device import device_named
from axoc_runtime.trace.generated import program
from runtime.jobs import LORA
from runtime.packs import tiny
from torch.autograd.graph import saved_tensors_hooks

from .shapes import LLAMA, job

pytestmark = pytest.mark.slow
H100 = device_named("h100-sxm-80gb")
TOKENS, WIDTH = 16, 32


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def planned(folder: Path, *, adapted: bool, checkpointing: str = "none") -> Any:
    return job(
        folder, LLAMA, model__compile=True, adapter=LORA if adapted else None,
        training__gradient_checkpointing=checkpointing, training__checkpointed_layers=2,
    )  # fmt: skip


def inductor_without_code(module: Any, inputs: Any) -> Any:
    """Inductor's own decompositions, passes and partition; its graphs are run operation by operation, on a real CPU."""
    from functorch.compile import make_boxed_func  # type: ignore[import-untyped]
    from torch._inductor.compile_fx import compile_fx

    return compile_fx(module, inputs, inner_compile=lambda graph, _, **kwargs: make_boxed_func(graph.forward))


def saved_bytes(block: Any) -> list[int]:
    """Of each tensor that a block's graph saves, weights and inputs among them."""
    hidden = torch.zeros(1, TOKENS, WIDTH, requires_grad=True)
    turns = tuple(torch.zeros(1, TOKENS, block.self_attn.head_dim) for _ in range(2))
    found: list[int] = []

    def seen(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor.numel() * tensor.element_size())
        return tensor

    with saved_tensors_hooks(seen, lambda tensor: tensor):
        block(hidden, position_embeddings=turns)
    return sorted(found)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_compiled_block_saves_what_torch_saves(tmp_path: Path, adapted: bool) -> None:
    """Without autocast, and with attention from single operations: a CPU does both as an accelerator does."""
    plan = planned(tmp_path, adapted=adapted)
    model = tiny("llama", "eager")
    model = add_adapter(plan, model) if adapted else model
    block = decoder_blocks(plan, model.train())[0]
    block.forward = torch.compile(block.forward, backend=inductor_without_code)
    really = saved_bytes(block)
    with as_on_cuda(H100), compiling(plan, H100):
        model = tiny("llama", "eager")
        model = add_adapter(plan, model) if adapted else model
        compile_blocks(plan, model.train())
        assert saved_bytes(decoder_blocks(plan, model)[0]) == really
    eager = tiny("llama", "eager")
    eager = add_adapter(plan, eager) if adapted else eager
    assert sum(saved_bytes(decoder_blocks(plan, eager.train())[0])) > sum(really)


def test_what_is_done_around_a_compiled_block_stays_outside_of_its_graph(tmp_path: Path) -> None:
    """A checkpoint keeps the block's input alone."""
    kept = []
    plan = planned(tmp_path, adapted=False, checkpointing="full")
    with as_on_cuda(H100) as live, compiling(plan, H100):
        model = tiny("llama", "eager").train()
        set_checkpointing(plan, model)
        compile_blocks(plan, model)
        hidden = torch.zeros(1, TOKENS, WIDTH, requires_grad=True)
        turns = tuple(torch.zeros(1, TOKENS, model.model.layers[0].self_attn.head_dim) for _ in range(2))
        for block in decoder_blocks(plan, model):
            before = live.live
            hidden = block(hidden, position_embeddings=turns)
            kept.append(live.live - before)
        hidden.sum().backward()  # type: ignore[no-untyped-call]
    kept[0] -= H100.blas_workspace_bytes  # the thread's first product
    assert kept == [TOKENS * WIDTH * 4] * len(kept)
    assert max(live.peaks.values()) > live.live


def test_a_program_of_inductor_makes_and_frees_its_buffers_without_a_gpu() -> None:
    source = """
import triton
class Runner:
    def call(self, args):
        given, = args
        args.clear()
        assert_size_stride(given, (256, 4), (4, 1))
        with torch.cuda._DeviceGuard(0):
            torch.cuda.set_device(0)
            buf0 = empty_strided_cuda((256, 256), (256, 1), torch.float32)
            extern_kernels.mm(given, reinterpret_tensor(given, (4, 256), (1, 4), 0), out=buf0)
            buf1 = buf0; del buf0  # reuse
            triton_poi_fused_0.run(buf1, 65536, stream=get_raw_stream(0))
        return (buf1, )
"""
    with as_on_cuda(H100) as live:
        (made,) = program(source, {})([torch.zeros(256, 4)])
        assert made.shape == (256, 256)
        workspace = H100.blas_workspace_bytes
        assert live.live == 256 * 256 * 4 + workspace
