"""AdamW whose bfloat16 weights are rounded up or down by chance, so that no update is lost on average.

A bfloat16 number has 8 bits of precision: an update below a 512th of a weight leaves it as it was, however often it comes.
Rounded stochastically it moves the weight with the probability that makes the mean right, and no float32 copy of the weights
is needed (arXiv 2010.06192). The second moment, whose every change is about a thousandth of itself, is rounded so too.

Chance is a hash of the seed, the step, which weight it is and the element's place in it: ranks that hold a copy of the same
weight round it alike whatever random numbers they have drawn before, and a resumed run rounds as the stopped one would have.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import torch

ROW: Final = 1024
"""Elements: a length that a graph knows to be a multiple of 16, so that its kernel reads and writes whole vectors."""
FACTORS: Final = (0x7FEB352D, 0x846CA68B - (1 << 32))
"""Of Wellons' lowbias32: each bit of the input turns each of the output's with a probability of a half, to a thousandth."""


class StochasticAdamW(torch.optim.Optimizer):
    """torch's AdamW otherwise: the same arguments, states by the same names, in the dtype of their weight. Weights of other
    dtypes are written as they are."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        compiled: bool = False,
        seed: int = 0,
    ) -> None:
        """``compiled``: the update of a weight is one kernel, not forty."""
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.compiled, self.seed = compiled, seed

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else torch.enable_grad()(closure)()
        for index, group in enumerate(self.param_groups):
            self._update(index, group)
        return loss

    def _update(self, index: int, group: dict[str, Any]) -> None:
        """Numbers that change from step to step come to the device together, once: a copy for each weight would wait for it."""
        (beta1, beta2), rate = group["betas"], float(group["lr"])
        places = [place for place, p in enumerate(group["params"]) if p.grad is not None]
        weights = [group["params"][place] for place in places]
        if not weights:
            return
        steps = [self._counted(weight) for weight in weights]
        changing = {
            made: [rate / (1 - beta1**made), (1 - beta2**made) ** 0.5, 1 - rate * group["weight_decay"]]
            for made in set(steps)
        }
        device, run = weights[0].device, _update_function(self.compiled)
        numbers = dict(zip(changing, _sent(list(changing.values()), torch.float32, device), strict=True))
        chances = {made: _seeds(len(group["params"]), self.seed, made, index) for made in changing}
        seeds = _sent([[chances[made][place]] for place, made in zip(places, steps, strict=True)], torch.int32, device)
        for weight, made, seed in zip(weights, steps, seeds, strict=True):
            state = self.state[weight]
            flat = [_rows(t) for t in (weight, weight.grad, state["exp_avg"], state["exp_avg_sq"])]
            if flat[0].numel():
                run(*flat, numbers[made], seed, beta1, beta2, group["eps"])

    def _counted(self, weight: torch.Tensor) -> float:
        """The number of the step that is made, on the host."""
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["step"] += 1
        return float(state["step"])


def _seeds(count: int, *parts: float) -> list[int]:
    """One for each weight, others wherever a part differs."""
    whole = random.Random(repr(parts)).getrandbits(32) - (1 << 31)
    found: list[int] = hashed(torch.tensor([whole], dtype=torch.int32), torch.empty(count)).tolist()
    return found


def _sent(values: Sequence[Sequence[float]], dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Each on the device, by one copy that nothing waits for: pinned, since a pageable one may wait for all work before it. In
    16 bytes each: compiled code copies an input that begins elsewhere than the first one did."""
    padded = [[*row, *[0] * (4 - len(row))] for row in values]
    made = torch.tensor(padded, dtype=dtype, pin_memory=device.type == "cuda")
    return made.to(device, non_blocking=True).unbind()


def _rows(tensor: Any) -> torch.Tensor:
    """The part of it that this rank holds, in rows of ``ROW`` where they come out even."""
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local.view(-1) if local.numel() % ROW else local.view(-1, ROW)  # type: ignore[no-any-return]


def update(
    weight: torch.Tensor,
    gradient: torch.Tensor,
    mean: torch.Tensor,
    square: torch.Tensor,
    numbers: torch.Tensor,
    seed: torch.Tensor,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """In place. ``numbers``: learning rate over the first moment's correction, root of the second's, and what decay leaves of
    a weight: as a tensor, since they change in every step."""
    slope = gradient.float()
    first = mean.float().lerp(slope, 1 - beta1)
    second = square.float().lerp(slope * slope, 1 - beta2)
    new = weight.float() * numbers[2] - numbers[0] * first / (second.sqrt() / numbers[1] + eps)
    chance = hashed(seed, weight)
    mean.copy_(first)
    square.copy_(rounded(second, square.dtype, chance & 0xFFFF))
    weight.copy_(rounded(new, weight.dtype, (chance >> 16) & 0xFFFF))


def hashed(seed: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """32 bits by chance for each element, of the first number in ``seed``: a few integer operations, where a random
    generator's ten rounds would take longer than reading and writing the weights."""
    bits = torch.arange(like.numel(), dtype=torch.int32, device=like.device).view(like.shape) ^ seed[0]
    for factor, shift in zip(FACTORS, (16, 15), strict=True):
        bits = (bits ^ ((bits >> shift) & ((1 << (32 - shift)) - 1))) * factor
    return bits ^ ((bits >> 16) & 0xFFFF)


def rounded(exact: torch.Tensor, dtype: torch.dtype, chance: torch.Tensor) -> torch.Tensor:
    """float32 to bfloat16: one of the two neighbours, each as probable as it is near. To other dtypes: as ever.

    A bfloat16 is the upper half of a float32: a random lower half, added, carries over as often as the cut half is large.
    """
    if dtype != torch.bfloat16:
        return exact.to(dtype)
    return ((exact.view(torch.int32) + chance) & -65536).view(torch.float32).to(dtype)


@cache
def _update_function(compiled: bool) -> Callable[..., None]:
    """One graph for weights of all sizes: after the second one the number of rows is a symbol."""
    return torch.compile(update) if compiled else update
