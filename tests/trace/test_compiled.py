"""Compiled blocks: what torch really saves of them, what a checkpoint keeps, and the program that Inductor writes."""

from __future__ import annotations

import ast
import json
import os
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
from axoc_runtime.trace.generated import Traceless, program
from axoc_runtime.trace.patching import replaced
from runtime.jobs import LORA
from runtime.packs import tiny
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import _pop_mode_temporarily

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


def test_depths_share_what_was_compiled_for_the_first(tmp_path: Path) -> None:
    from axoc_runtime.trace.extrapolate import trace
    from torch._dynamo.utils import counters

    plan, found = planned(tmp_path, adapted=True, checkpointing="full"), {}
    for seconds in (0.0, 1e9):
        counters.clear()
        found[seconds] = trace(plan, {**LLAMA, "num_hidden_layers": 8}, full_run_seconds=seconds)
        assert counters["stats"]["unique_graphs"] == 1
    assert found[0.0].layers_run == (3, 5) and found[1e9].layers_run == (8,)
    assert found[0.0].peak_allocated_bytes == found[1e9].peak_allocated_bytes


def in_a_process_of_its_own(function: Any, *args: Any) -> Any:
    ours, theirs = os.pipe()
    if os.fork() == 0:
        try:
            with os.fdopen(theirs, "w") as file:
                json.dump(function(*args), file)
        finally:
            os._exit(0)  # whatever was raised: a child that goes on would run the other tests as well
    os.close(theirs)
    with os.fdopen(ours) as file:
        found = file.read()
    os.wait()
    return json.loads(found)


def bytes_of(plan: Any, sizes: Any) -> list[int]:
    from axoc_runtime.trace.extrapolate import trace

    found = trace(plan, sizes)
    return [found.peak_allocated_bytes, found.peak_reserved_bytes, *found.phases.values()]


def test_jobs_in_one_process_are_traced_as_each_in_its_own(tmp_path: Path) -> None:
    """Blocks of one class with other shapes and adapters before it leave nothing behind."""
    config = {**LLAMA, "num_hidden_layers": 3}
    wide = {**config, "hidden_size": 128}
    one, other = (
        (planned(tmp_path, adapted=True, checkpointing="full"), config),
        (planned(tmp_path, adapted=False), wide),
    )
    other_alone = in_a_process_of_its_own(bytes_of, *other)
    first, then, again = (bytes_of(*job) for job in (one, other, one))
    assert then == other_alone and again == first != then


def test_what_counts_is_not_compiled(tmp_path: Path) -> None:
    """Where a storage dies between two graphs Dynamo looks at whatever Python is called, what counts it too."""
    from torch._dynamo import convert_frame

    def broken(given: torch.Tensor) -> torch.Tensor:
        doubled = given * 2
        torch._dynamo.graph_break()
        more = doubled + 1
        del doubled
        return more * 3

    plan = planned(tmp_path, adapted=False)
    with as_on_cuda(H100), compiling(plan, H100), _pop_mode_temporarily():
        torch.compile(broken, backend="eager")(torch.zeros(4096))
    codes = [code for made in convert_frame.input_codes.seen if (code := made()) is not None]
    assert any(code.co_name == "broken" for code in codes)
    assert not [code for code in codes if "axoc_runtime/trace" in code.co_filename]


def test_an_adapter_s_dropout_in_a_compiled_block_keeps_a_mask_and_each_layer_s_own_input(tmp_path: Path) -> None:
    """A byte of mask for each element of the seven layers' inputs, and seven dropped inputs where four were shared: three more."""
    from axoc_runtime.trace.model import build

    saved = {}
    for dropout in (0.0, 0.1):
        plan = job(tmp_path, LLAMA, model__compile=True, adapter={**LORA, "dropout": dropout}, model__dtype="bfloat16")
        with as_on_cuda(H100) as live, compiling(plan, H100), torch.autocast("cpu", torch.bfloat16):
            block = decoder_blocks(plan, build(plan, LLAMA, H100, live))[1]
            turns = tuple(torch.zeros(2, 64, 16) for _ in range(2))
            hidden, before = torch.zeros(2, 64, 64, requires_grad=True), live.live
            out = block(hidden, position_embeddings=turns)
            saved[dropout] = live.live - before
            out.sum().backward()
    masks, tokens = 6 * 64 + 160, 128
    assert saved[0.1] - saved[0.0] == tokens * (masks + 3 * 64 * 2)


def test_inductor_takes_no_tensor_of_a_graph_for_the_host_s(tmp_path: Path) -> None:
    """Of FSDP2 with its shards on the host torch asks whether these are pinned, and is told so; tensors of a graph are none of them."""
    plan = planned(tmp_path, adapted=False)
    with as_on_cuda(H100), compiling(plan, H100), replaced(torch.Tensor, "is_pinned", lambda tensor, *args: True):
        model = tiny("llama", "eager").train()
        compile_blocks(plan, model)
        block = decoder_blocks(plan, model)[0]
        turns = tuple(torch.zeros(1, TOKENS, block.self_attn.head_dim) for _ in range(2))
        out = block(torch.zeros(1, TOKENS, WIDTH, requires_grad=True), position_embeddings=turns)
    assert out.shape == (1, TOKENS, WIDTH)


@pytest.mark.parametrize("double", [False, True])
def test_four_bit_layers_in_a_compiled_block_save_what_bitsandbytes_saves(tmp_path: Path, double: bool) -> None:
    """Its own function in the graph: the packed weight is not saved a second time, nor is a dequantized one; while a product
    runs there is the weight in bf16, and its scales twice where they are scaled themselves."""
    from axoc_runtime.trace.model import build

    quantization = {"method": "nf4", "double_quantization": double, "options": {}}
    events, saved = {}, {}
    for compiles in (False, True):
        plan = job(tmp_path, LLAMA, model__compile=compiles, model__quantization=quantization, adapter=LORA,
                   model__dtype="bfloat16")  # fmt: skip
        with as_on_cuda(H100) as live, compiling(plan, H100), torch.autocast("cpu", torch.bfloat16):
            model = build(plan, LLAMA, H100, live)
            block = decoder_blocks(plan, model)[1]
            hidden = torch.zeros(2, 64, 64, requires_grad=True)
            turns = tuple(torch.zeros(2, 64, 16) for _ in range(2))
            before, at = live.live, len(live.events)
            out = block(hidden, position_embeddings=turns)
            saved[compiles] = live.live - before
            out.sum().backward()
            events[compiles] = [e.num_bytes for e in live.events[at:]]
    assert saved[True] < saved[False]
    weight = 64 * 160 * 2  # of the MLP, in bf16
    for compiles in (False, True):
        assert events[compiles].count(weight) >= 6, "three weights of the MLP are dequantized forward and backward"


def test_what_is_taken_out_of_a_program_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels and products of views: with them the same storages come and go, in the same order."""
    from axoc_runtime.trace import generated

    plan, events = planned(tmp_path, adapted=True), []
    for taken_out in (False, True):
        torch._dynamo.reset()
        monkeypatch.setattr(
            generated.Traceless, "visit", ast.NodeTransformer.visit if taken_out else lambda _, tree: tree
        )
        with as_on_cuda(H100) as live, compiling(plan, H100):
            model = add_adapter(plan, tiny("llama", "eager"))
            compile_blocks(plan, model.train())
            at = len(live.events)
            saved_bytes(decoder_blocks(plan, model)[0])
            events.append([(e.block - live.events[at].block, e.num_bytes) for e in live.events[at:]])
    assert events[0] == events[1]


def test_a_program_keeps_what_its_arguments_make() -> None:
    kept = "extern_kernels.mm(torch.ones(4), two, out=buf)"
    assert ast.unparse(Traceless().visit(ast.parse(kept))) == kept
    lines = [
        "triton_a.run(buf, 4)",
        "extern_kernels.mm(one, reinterpret_tensor(two, (4,), (1,), 0), out=buf)",
        "del two",
    ]
    assert ast.unparse(Traceless().visit(ast.parse("\n".join(lines)))) == "product()\ndel two"


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


def test_blocks_compiled_for_rows_of_any_length_are_traced(tmp_path: Path) -> None:
    """Padded ones: of a second length Dynamo makes a symbol, and Inductor then decomposes what is done to a mask."""
    from axoc_runtime.trace.extrapolate import trace

    plan = job(tmp_path, LLAMA, model__compile=True, model__dtype="bfloat16")
    found = trace(plan, {**LLAMA, "num_hidden_layers": 1}, padded=True, widths=((24,), (40,)))
    assert found.layers_run == (1,)
