"""Host seconds to launch what a step launches: eager torch alone, then the real models where transformers is there.

Tensors are tiny, so that the device always waits. Models are run at two depths: the difference is a block's, the rest is
what a step pays once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from axoc_runtime.calibrate.blocks import Block, BlockShape
from axoc_runtime.calibrate.clock import Clock, random
from axoc_runtime.calibrate.tables import Point, Table, Value

TINY: Final = BlockShape(hidden=64, heads=4, kv_heads=2, head_dim=16, intermediate=128)
CHAIN: Final = 20
"""Operations in a row: what starting a backward costs is spread over them."""


def operations_table(*, small: bool) -> Table:
    return Table(
        name="host_operations",
        about="host seconds of one eager operation with autograd, forward and backward, in a chain of 20",
        keys=("operation", "autocast"),
        values=("forward_seconds", "backward_seconds"),
        points=[(name, auto) for name in OPERATIONS for auto in (True, False)],
        measure=_measure_operation,
    )


def blocks_table(*, small: bool) -> Table:
    return Table(
        name="host_blocks",
        about="host seconds of a hand-written Llama block of 4 in a row, by weights' dtype, under bf16 autocast",
        keys=("dtype", "checkpointing"),
        values=("forward_seconds", "backward_seconds"),
        points=[("fp32", False), ("fp32", True)],
        measure=_measure_blocks,
    )


def _on(clock: Clock, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    return {"device": clock.device, "dtype": dtype}


def _attend(x: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(x, x, x, is_causal=True)


OPERATIONS: Final[dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]] = {
    "add": lambda x, w: x + w,
    "mul": lambda x, w: x * w,
    "silu": lambda x, w: F.silu(x),
    "cast_twice": lambda x, w: x.float().bfloat16(),
    "view": lambda x, w: x.view(16, 16).view(256),
    "linear": lambda x, w: F.linear(x.view(16, 16), w.view(16, 16)).view(256),
    "attention": lambda x, w: _attend(x.view(1, 1, 16, 16)).view(256),
}


def _measure_operation(clock: Clock, point: Point) -> Sequence[Value]:
    run, auto = OPERATIONS[str(point[0])], bool(point[1])
    x, w = (random(clock, 256, scale=0.01).requires_grad_() for _ in range(2))

    def forward() -> torch.Tensor:
        with torch.autocast(clock.device.type, torch.bfloat16, enabled=auto):
            y = x
            for _ in range(CHAIN):
                y = run(y, w)
        return y

    return tuple(s / CHAIN for s in _forward_backward(clock, forward, lambda: _clear([x, w])))


def _measure_blocks(clock: Clock, point: Point) -> Sequence[Value]:
    dtype = torch.float32 if point[0] == "fp32" else torch.bfloat16
    with torch.device(clock.device):
        blocks = [Block(TINY).to(dtype) for _ in range(4)]
    x = torch.randn(1, 16, TINY.hidden, **_on(clock, dtype)).requires_grad_()
    cos = torch.randn(1, 1, 16, TINY.head_dim, **_on(clock, dtype))

    def forward() -> torch.Tensor:
        with torch.autocast(clock.device.type, torch.bfloat16):
            y = x
            for block in blocks:
                y = checkpoint(block, y, cos, cos, use_reentrant=False) if point[1] else block(y, cos, cos)
        return y

    parameters = [x, *(p for b in blocks for p in b.parameters())]
    return tuple(s / len(blocks) for s in _forward_backward(clock, forward, lambda: _clear(parameters)))


def _clear(tensors: list[torch.Tensor]) -> None:
    for tensor in tensors:
        tensor.grad = None


def _forward_backward(
    clock: Clock, forward: Callable[[], torch.Tensor], clear: Callable[[], None]
) -> tuple[float, float]:
    """Backward is the whole less the forward: a graph cannot be gone through twice where blocks are recomputed."""

    def both() -> None:
        forward().sum().backward()  # type: ignore[no-untyped-call]
        clear()

    first = clock.host_seconds(forward)
    return first, max(clock.host_seconds(both) - first, 0.0)


SHAPE: Final = {
    "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "vocab_size": 128, "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip
MOE: Final = {"num_experts_per_tok": 2, "num_local_experts": 8, "num_experts": 8, "moe_intermediate_size": 64}
CONFIGS: Final[dict[str, dict[str, Any]]] = {
    "llama": SHAPE,
    "mistral": SHAPE,
    "qwen2": SHAPE,
    "qwen3": SHAPE,
    "gemma2": SHAPE | {"query_pre_attn_scalar": 16},
    "gemma3_text": SHAPE | {"query_pre_attn_scalar": 16},
    "phi3": {k: v for k, v in SHAPE.items() if k != "head_dim"} | {"pad_token_id": 0},
    "olmo2": {k: v for k, v in SHAPE.items() if k != "head_dim"},
    "falcon": {"hidden_size": 64, "num_attention_heads": 4, "vocab_size": 128, "new_decoder_architecture": False},
    "gpt_neox": {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "vocab_size": 128},
    "gpt2": {"n_embd": 64, "n_head": 4, "vocab_size": 128, "n_positions": 64},
    "mixtral": SHAPE | MOE,
    "qwen3_moe": SHAPE | MOE,
}
VARIANTS: Final = ("fp32", "bf16", "lora", "qlora", "liger")
DEPTHS: Final = (2, 6)


def models_table(*, small: bool) -> Table:
    points = [(f, "fp32", bool(i % 2)) for i, f in enumerate(CONFIGS)] + [("llama", "fp32", True)]
    points += [("llama", v, c) for v in VARIANTS[1:] for c in (False, True)]
    points += [(f, v, True) for f in ("qwen3", "gemma2", "mixtral") for v in ("bf16", "lora")]
    return Table(
        name="host_models",
        about="host seconds of transformers' models under bf16 autocast: a block's, and the rest of the model with its loss",
        keys=("family", "variant", "checkpointing"),
        values=("block_forward_seconds", "block_backward_seconds", "rest_forward_seconds", "rest_backward_seconds"),
        points=[("llama", "fp32", True), ("llama", "lora", False)] if small else points,
        measure=_measure_model,
        needs=("transformers",),
    )


def _measure_model(clock: Clock, point: Point) -> Sequence[Value]:
    family, variant, checkpointing = str(point[0]), str(point[1]), bool(point[2])
    warnings.filterwarnings("ignore")
    times = [_model_seconds(clock, family, variant, checkpointing, depth) for depth in DEPTHS]
    block = [(b - a) / (DEPTHS[1] - DEPTHS[0]) for a, b in zip(*times, strict=True)]
    rest = [max(a - DEPTHS[0] * per, 0.0) for a, per in zip(times[0], block, strict=True)]
    return (*block, *rest)


def _model_seconds(clock: Clock, family: str, variant: str, checkpointing: bool, depth: int) -> tuple[float, float]:
    model = make_model(clock, family, variant, checkpointing, depth)
    tokens = torch.randint(5, 100, (1, 32), device=clock.device)

    def forward() -> torch.Tensor:
        with torch.autocast(clock.device.type, torch.bfloat16):
            loss: torch.Tensor = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        return loss

    def clear() -> None:
        model.zero_grad(set_to_none=True)

    return _forward_backward(clock, forward, clear)


def make_model(clock: Clock, family: str, variant: str, checkpointing: bool, depth: int) -> Any:
    import transformers

    transformers.logging.set_verbosity_error()
    layers = {"n_layer": depth} if family == "gpt2" else {"num_hidden_layers": depth}
    config = transformers.AutoConfig.for_model(family, **CONFIGS[family], **layers)
    dtype = torch.float32 if variant == "fp32" else torch.bfloat16
    with torch.device(clock.device):
        model: Any = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    if variant == "liger":
        from liger_kernel.transformers import _apply_liger_kernel_to_instance  # type: ignore[import-not-found]

        _apply_liger_kernel_to_instance(model=model)
    if variant == "qlora":
        model = _quantized(model, clock)
    if variant in ("lora", "qlora"):
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if variant in ("lora", "qlora"):
            model.enable_input_require_grads()
    return model


def _quantized(model: Any, clock: Clock) -> Any:
    import bitsandbytes as bnb

    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and not name.endswith("lm_head"):
            parent, _, leaf = name.rpartition(".")
            new = bnb.nn.Linear4bit(
                module.in_features, module.out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
            )
            new.weight = bnb.nn.Params4bit(module.weight.data, requires_grad=False, quant_type="nf4").to(clock.device)
            setattr(model.get_submodule(parent), leaf, new)
    return model
