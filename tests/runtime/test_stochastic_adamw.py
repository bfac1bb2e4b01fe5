"""Updates that bfloat16 would lose are kept on average; in float32 it is torch's AdamW."""

from __future__ import annotations

import copy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from axoc_runtime.optimizers import own_optimizer
from axoc_runtime.optimizers.stochastic_adamw import ROW, StochasticAdamW, hashed, rounded

from runtime.jobs import make_job

pytestmark = pytest.mark.slow


def weights(dtype: torch.dtype, count: int = 4096) -> torch.nn.Parameter:
    draw = torch.Generator().manual_seed(0)
    return torch.nn.Parameter((1 + torch.rand(count, generator=draw)).to(dtype))


def walk(optimizer: Any, weight: torch.nn.Parameter, steps: int, seed: int = 1) -> None:
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        weight.grad = (1 + torch.randn(weight.shape, generator=draw)).to(weight.dtype)
        optimizer.step()


def test_rounding_is_right_on_average_and_to_a_neighbour() -> None:
    exact = torch.tensor([1.0, 1.001, 1.0039, -3.3, 1e-20, 0.0]).repeat(20_000, 1)
    made = rounded(exact, torch.bfloat16, hashed(torch.tensor([77]), exact) & 0xFFFF).float()
    below = (exact.view(torch.int32) & -65536).view(torch.float32)
    above = ((exact.view(torch.int32) & -65536) + 65536).view(torch.float32)
    assert bool(((made == below) | (made == above)).all())
    assert bool((made[:, [0, 5]] == exact[:, [0, 5]]).all()), "what is exact stays"
    torch.testing.assert_close(made.mean(0), exact[0], rtol=1e-4, atol=0)


def test_chance_has_no_pattern() -> None:
    """Of both halves, along the places, from seed to seed: as far from even as independent bits would be."""
    places = torch.zeros(1 << 16)
    for one, other in ((0, 1), (12345, -1), (7, 1 << 20)):
        found, second = (hashed(torch.tensor([seed], dtype=torch.int32), places) for seed in (one, other))
        for bits in (found & 0xFFFF, (found >> 16) & 0xFFFF):
            shares = torch.stack([((bits >> bit) & 1).double().mean() for bit in range(16)])
            assert float((shares - 0.5).abs().max()) < 5 * 0.5 / 256
            centred = bits.double() - bits.double().mean()
            assert abs(float((centred[1:] * centred[:-1]).mean() / centred.var())) < 5 / 256
        together = torch.stack([(found & 0xFFFF).double(), (second & 0xFFFF).double()])
        assert abs(float(torch.corrcoef(together)[0, 1])) < 5 / 256
        halves = torch.stack([(found & 0xFFFF).double(), ((found >> 16) & 0xFFFF).double()])
        assert abs(float(torch.corrcoef(halves)[0, 1])) < 5 / 256


def test_copies_of_a_weight_are_rounded_alike_and_not_like_others() -> None:
    """Ranks have drawn other numbers by then: for dropout, or rows of other lengths."""
    ranks = []
    for drawn in (3, 4):
        torch.manual_seed(drawn)
        copies = [weights(torch.bfloat16), weights(torch.bfloat16)]
        optimizer = StochasticAdamW(copies, lr=1e-3, seed=42)
        for _ in range(2):
            for weight in copies:
                weight.grad = torch.ones_like(weight)
            optimizer.step()
        ranks.append([w.detach() for w in copies])
    assert torch.equal(ranks[0][0], ranks[1][0]) and torch.equal(ranks[0][1], ranks[1][1])
    assert not torch.equal(ranks[0][0], ranks[0][1])


@pytest.mark.skipif(shutil.which("g++") is None or " " in sys.prefix, reason="compiling for a CPU needs a C++ compiler")
def test_compiled_it_does_the_same_with_a_graph_for_all_sizes() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()  # of tests before this one in its process
    sizes = (4 * ROW, 6 * ROW, 9 * ROW, 100, 31, 33 * ROW)
    made = []
    for compiled in (False, True):
        several = [weights(torch.bfloat16, size) for size in sizes]
        optimizer = StochasticAdamW(several, lr=1e-2, compiled=compiled)
        for turn in range(3):
            for weight in several:
                weight.grad = torch.full_like(weight, 0.5 + turn)
            optimizer.step()
        made.append(several)
    graphs = int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    torch._dynamo.reset()
    assert graphs <= 4, "of rows and of what comes out odd, of one size and of any"
    for one, other in zip(*made, strict=True):
        differ = (one != other).float().mean()
        assert float(differ) < 0.02, "but for the last bit of what is rounded"
        torch.testing.assert_close(one, other, rtol=0.01, atol=0)


def test_in_float32_it_is_adamw() -> None:
    ours, theirs = weights(torch.float32), weights(torch.float32)
    walk(StochasticAdamW([ours], lr=1e-2, weight_decay=0.1), ours, 5)
    walk(torch.optim.AdamW([theirs], lr=1e-2, weight_decay=0.1), theirs, 5)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_small_updates_are_lost_to_nearest_and_not_to_chance() -> None:
    """A learning rate of a thousandth of a bfloat16's step: torch's AdamW stands still, ours goes where float32 goes."""
    exact, near, chance = weights(torch.float32), weights(torch.bfloat16), weights(torch.bfloat16)
    began = near.detach().float().mean()
    for kind, weight in ((torch.optim.AdamW, exact), (torch.optim.AdamW, near), (StochasticAdamW, chance)):
        walk(kind([weight], lr=1e-5, weight_decay=0.0), weight, 60)
    moved = exact.detach().mean() - weights(torch.float32).mean()
    assert abs(near.detach().float().mean() - began) < 0.05 * abs(moved)
    assert float((chance.detach().float().mean() - began).detach()) == pytest.approx(float(moved.detach()), rel=0.3)


def test_the_second_moment_decays() -> None:
    """A thousandth a step: rounded to the nearest it would stay where it is."""
    weight = weights(torch.bfloat16)
    optimizer = StochasticAdamW([weight], lr=0.0)
    weight.grad = torch.full_like(weight, 8.0)
    optimizer.step()
    for _ in range(400):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    expected = 64 * 0.001 * 0.999**400
    assert optimizer.state[weight]["exp_avg_sq"].float().mean() == pytest.approx(expected, rel=0.02)


def test_a_loaded_state_goes_on_to_the_last_bit() -> None:
    weight = weights(torch.bfloat16)
    optimizer = StochasticAdamW([weight], lr=1e-3)
    walk(optimizer, weight, 3)
    other = torch.nn.Parameter(weight.detach().clone())
    loaded = StochasticAdamW([other], lr=1e-3)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for kind, trained in ((optimizer, weight), (loaded, other)):
        walk(kind, trained, 2, seed=9)
    assert torch.equal(weight, other) and float(loaded.state[other]["step"]) == 5.0
    assert loaded.state[other]["exp_avg_sq"].dtype == torch.bfloat16


def test_a_job_asks_for_it(tmp_path: Path) -> None:
    assert own_optimizer(make_job(tmp_path)) == {}
    kind, options = own_optimizer(make_job(tmp_path, training__bf16_update="stochastic"))["optimizer_cls_and_kwargs"]
    assert kind is StochasticAdamW and (options["lr"], options["seed"]) == (1e-3, 42)
