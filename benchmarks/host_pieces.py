"""Host seconds of operations, layers and blocks, for kernel_times.py: the fastest of many calls on tensors whose kernels take
nothing, since what else a machine does only adds; and the median.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

CHAIN: Final = 16
"""Operations or layers in a row, whose seconds are divided by it."""
ROUNDS: Final = 40
FIRST: Final = 5
"""Of the rounds are left out."""
Pieces = Iterator[tuple[str, Callable[[], list[float]]]]


def normal(clock: Any, *shape: int) -> Any:
    import torch

    return torch.randn(shape, device=clock.device, dtype=torch.bfloat16)


def fastest(clock: Any, forward: Callable[[], Any], clear: Callable[[], Any] = lambda: None) -> list[float]:
    """[forward, backward, forward's median, backward's]: the device done before each."""
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        clock.synchronize()
        began = time.perf_counter()
        made = forward()
        times[0].append(time.perf_counter() - began)
        loss = made.float().sum()
        clock.synchronize()
        began = time.perf_counter()
        loss.backward()
        times[1].append(time.perf_counter() - began)
        clear()
    kept = [sorted(t[FIRST:]) for t in times]
    return [t[0] / CHAIN for t in kept] + [statistics.median(t) / CHAIN for t in kept]


def chained(clock: Any, run: Callable[[Any], Any], *, autocast: bool = True, width: int = 64) -> list[float]:
    import torch

    x = normal(clock, 1, 16, width).requires_grad_()

    def forward() -> Any:
        with torch.autocast(clock.device.type, torch.bfloat16, enabled=autocast):
            y = x
            for _ in range(CHAIN):
                y = run(y)
        return y

    return fastest(clock, forward, lambda: setattr(x, "grad", None))


def operations(clock: Any) -> Pieces:
    """One eager operation with its autograd node."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    scale = torch.full((64,), 1.0, device=clock.device, dtype=torch.bfloat16)
    weights = {
        "frozen": normal(clock, 64, 64).mul_(0.1),
        "trained": normal(clock, 64, 64).mul_(0.1).requires_grad_(),
        "fp32 trained": normal(clock, 64, 64).mul_(0.1).float().requires_grad_(),
    }
    cos = normal(clock, 1, 1, 16, 16)
    chosen: dict[str, Callable[[Any], Any]] = {
        "mul": lambda x: x * scale,
        "add": lambda x: x + scale,
        "silu": F.silu,
        "cast": lambda x: x.float().bfloat16(),
        "view and transpose": lambda x: x.view(1, 16, 4, 16).transpose(1, 2).transpose(1, 2).reshape(1, 16, 64),
        "cat of halves": lambda x: torch.cat((-x[..., 32:], x[..., :32]), dim=-1),
        "rsqrt of mean": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
        "attention": lambda x: (
            F.scaled_dot_product_attention(*[x.view(1, 16, 4, 16).transpose(1, 2)] * 3, is_causal=True)
            .transpose(1, 2)
            .reshape(1, 16, 64)
        ),
        "dropout": lambda x: F.dropout(x, 0.1),
    }
    for name, run in chosen.items():
        yield f"host {name}", lambda run=run: chained(clock, run)
    for name, weight in weights.items():
        yield f"host linear, {name}", lambda w=weight: chained(clock, lambda x: F.linear(x, w))
    yield (
        "host linear, frozen, no autocast",
        lambda: chained(clock, lambda x: F.linear(x, weights["frozen"]), autocast=False),
    )

    def turned() -> list[float]:
        from transformers.models.llama.modeling_llama import rotate_half

        return chained(
            clock,
            lambda x: (x.view(1, 16, 4, 16) * cos[0, 0, :, None] + rotate_half(x.view(1, 16, 4, 16))).view(1, 16, 64),
        )

    yield "host rotary of one tensor", turned


def layers(clock: Any) -> Pieces:
    """Layers with Python of their own: transformers', Liger's, PEFT's, bitsandbytes'."""
    import torch

    def moved(layer: Any) -> Any:
        return layer.to(clock.device).train()

    def rms() -> Any:
        from transformers.models.llama.modeling_llama import LlamaRMSNorm

        return moved(LlamaRMSNorm(64).to(torch.bfloat16))

    def liger_rms() -> Any:
        from liger_kernel.transformers import LigerRMSNorm

        return moved(LigerRMSNorm(64).to(torch.bfloat16))

    def liger_mlp() -> Any:
        from liger_kernel.transformers import LigerSwiGLUMLP
        from transformers import LlamaConfig

        return moved(LigerSwiGLUMLP(LlamaConfig(hidden_size=64, intermediate_size=64, hidden_act="silu")).bfloat16())

    def plain_mlp() -> Any:
        from transformers import LlamaConfig
        from transformers.models.llama.modeling_llama import LlamaMLP

        return moved(LlamaMLP(LlamaConfig(hidden_size=64, intermediate_size=64)).bfloat16())

    def plain() -> Any:
        return moved(torch.nn.Linear(64, 64, bias=False).bfloat16())

    def quantized(nested: bool = True) -> Any:
        import bitsandbytes as bnb

        made = bnb.nn.Linear4bit(64, 64, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
        weight = bnb.nn.Params4bit(
            torch.randn(64, 64, dtype=torch.bfloat16),
            requires_grad=False,
            compress_statistics=nested,
            quant_type="nf4",
        )
        made.weight = weight.to(clock.device)
        return made

    def adapted(base: Callable[[], Any], dropout: float = 0.0) -> Any:
        from peft import LoraConfig, inject_adapter_in_model

        holder = torch.nn.Sequential()
        holder.add_module("proj", base())
        config = LoraConfig(r=8, target_modules=["proj"], lora_dropout=dropout)
        return moved(inject_adapter_in_model(config, holder))

    chosen: dict[str, Callable[[], Any]] = {
        "Linear module": plain,
        "RMS norm": rms,
        "Liger RMS norm": liger_rms,
        "MLP": plain_mlp,
        "Liger MLP": liger_mlp,
        "PEFT adapter": lambda: adapted(plain),
        "PEFT adapter with dropout": lambda: adapted(plain, 0.1),
        "bitsandbytes linear": quantized,
        "bitsandbytes linear, not nested": lambda: quantized(False),
        "PEFT adapter of bitsandbytes": lambda: adapted(quantized),
    }
    for name, make in chosen.items():
        yield f"host {name}", lambda make=make: chained(clock, make())


def stacked(clock: Any) -> Pieces:
    """A parameter that is no linear layer's, as experts' are: PEFT registers an adapted one anew in each forward."""
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    class Stacked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(2, 64, 64, dtype=torch.bfloat16))

        def forward(self, x: Any) -> Any:
            return torch.nn.functional.linear(x, self.weight[0])

    def adapted() -> Any:
        holder = torch.nn.Sequential()
        holder.add_module("experts", Stacked())
        return inject_adapter_in_model(LoraConfig(r=8, target_parameters=["experts.weight"]), holder)

    yield "host stacked parameter", lambda: chained(clock, Stacked().to(clock.device).train())
    yield "host PEFT adapter of a stacked parameter", lambda: chained(clock, adapted().to(clock.device).train())


def checkpoints(clock: Any) -> Pieces:
    """Blocks of four operations, and the same recomputed: plainly, and as transformers' layers do."""
    import torch
    from torch.utils.checkpoint import checkpoint

    def block(x: Any) -> Any:
        return (x.sigmoid() * x + x) * x  # each keeps a tensor: else nothing would be recomputed

    def recomputed(x: Any) -> Any:
        return checkpoint(block, x, use_reentrant=False)

    def without_random(x: Any) -> Any:
        return checkpoint(block, x, use_reentrant=False, preserve_rng_state=False)

    def kept_state() -> list[float]:
        began = time.perf_counter()
        for _ in range(CHAIN):
            torch.get_rng_state()
            if clock.device.type == "cuda":
                torch.cuda.get_rng_state()
        return [(time.perf_counter() - began) / CHAIN]

    yield "host four operations", lambda: chained(clock, block)
    yield "host four operations, recomputed", lambda: chained(clock, recomputed)
    yield "host four operations, recomputed, no random state", lambda: chained(clock, without_random)
    yield "host random states read", kept_state


def compiled(clock: Any) -> Pieces:
    """A small Llama block, eager and compiled as the runtime does it, recomputed or not."""
    import torch
    from torch.utils.checkpoint import checkpoint

    def run(*, compiled: bool, recomputed: bool, adapter: bool = False) -> list[float]:
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=CHAIN,
            vocab_size=64,
        )  # fmt: skip
        with torch.device(clock.device):
            model: Any = LlamaForCausalLM(config).bfloat16().train()
            if adapter:
                from peft import LoraConfig, get_peft_model

                model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear")).base_model.model
        layers = model.model.layers
        if compiled:
            for layer in layers:
                layer.forward = torch.compile(layer.forward, dynamic=False)
        x = normal(clock, 1, 16, 64).requires_grad_()
        turned = (normal(clock, 1, 16, 16), normal(clock, 1, 16, 16))

        def forward() -> Any:
            with torch.autocast(clock.device.type, torch.bfloat16):
                y = x
                for layer in layers:

                    def call(y: Any, layer: Any = layer) -> Any:
                        return layer(y, position_embeddings=turned, attention_mask=None)

                    y = checkpoint(call, y, use_reentrant=False) if recomputed else call(y)
            return y

        return fastest(clock, forward, lambda: model.zero_grad())

    for graphs in (False, True):
        for recomputed in (False, True):
            name = f"host Llama block{', compiled' if graphs else ''}{', recomputed' if recomputed else ''}"
            yield name, lambda c=graphs, r=recomputed: run(compiled=c, recomputed=r)
    yield "host Llama block with adapters, compiled", lambda: run(compiled=True, recomputed=False, adapter=True)
    yield "host Llama block with adapters", lambda: run(compiled=False, recomputed=False, adapter=True)
