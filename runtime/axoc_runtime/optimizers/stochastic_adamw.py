"""AdamW whose bfloat16 weights are rounded up or down by chance, so that no update is lost on average.

A bfloat16 number has 8 bits of precision: an update below a 512th of a weight leaves it as it was, however often it comes.
Rounded stochastically it moves the weight with the probability that makes the mean right, and no float32 copy of the weights
is needed (arXiv 2010.06192). The second moment, whose every change is about a thousandth of itself, is rounded so too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch


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
    ) -> None:
        """``compiled``: the update of a weight is one kernel, not thirty."""
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.compiled = compiled

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for weight in (p for p in group["params"] if p.grad is not None):
                self._update(weight, group)
        return loss

    def _update(self, weight: torch.Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[weight], group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["step"] += 1
        made, rate = float(state["step"]), float(group["lr"])
        changing = [rate / (1 - beta1**made), (1 - beta2**made) ** 0.5, 1 - rate * group["weight_decay"]]
        flat = [_flat(t) for t in (weight, weight.grad, state["exp_avg"], state["exp_avg_sq"])]
        if flat[0].numel():
            numbers = torch.tensor(changing, dtype=torch.float32).to(flat[0].device, non_blocking=True)
            _update_function(self.compiled)(*flat, numbers, beta1, beta2, group["eps"])


def _flat(tensor: Any) -> torch.Tensor:
    """The part of it that this rank holds, as one row."""
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local.view(-1)  # type: ignore[no-any-return]


def update(
    weight: torch.Tensor,
    gradient: torch.Tensor,
    mean: torch.Tensor,
    square: torch.Tensor,
    numbers: torch.Tensor,
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
    mean.copy_(first)
    square.copy_(rounded(second, square.dtype))
    weight.copy_(rounded(new, weight.dtype))


def rounded(exact: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """float32 to bfloat16: one of the two neighbours, each as probable as it is near. To other dtypes: as ever.

    A bfloat16 is the upper half of a float32: a random lower half, added, carries over as often as the cut half is large.
    """
    if dtype != torch.bfloat16:
        return exact.to(dtype)
    chance = torch.randint(0, 1 << 16, exact.shape, dtype=torch.int32, device=exact.device)
    return ((exact.view(torch.int32) + chance) & -65536).view(torch.float32).to(dtype)


@cache
def _update_function(compiled: bool) -> Callable[..., None]:
    """One graph for weights of all sizes: they are rows whose length is a symbol."""
    return torch.compile(update, dynamic=True) if compiled else update
