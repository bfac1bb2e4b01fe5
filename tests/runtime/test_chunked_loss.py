"""The chunked loss: equal to the plain one, in losses and gradients, and what it keeps is small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.kernels.chunked_loss import IGNORED, chunk, chunk_in_place, linear_cross_entropy
from axoc_runtime.kernels.head import use_chunked_loss
from torch.nn import functional

from runtime.jobs import LORA, make_job
from runtime.packs import assert_same, documents, packed, tiny, together

pytestmark = pytest.mark.slow

ROWS, WIDTH, WORDS = 37, 16, 211


def parts(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    made = {
        "hidden": torch.randn(ROWS, WIDTH, generator=draw),
        "weight": torch.randn(WORDS, WIDTH, generator=draw),
        "bias": torch.randn(WORDS, generator=draw),
    }
    return {name: t.to(dtype).requires_grad_() for name, t in made.items()}


def targets() -> torch.Tensor:
    made = torch.randint(0, WORDS, (ROWS,), generator=torch.Generator().manual_seed(4))
    made[::5] = IGNORED
    return made


def plain(given: dict[str, torch.Tensor], items: Any, softcapping: float | None, bias: bool) -> torch.Tensor:
    logits = functional.linear(given["hidden"], given["weight"], given["bias"] if bias else None).float()
    if softcapping is not None:
        logits = softcapping * torch.tanh(logits / softcapping)
    total = functional.cross_entropy(logits, targets(), ignore_index=IGNORED, reduction="sum")
    return total / (items if items is not None else targets().ne(IGNORED).sum())


def close(made: torch.Tensor, wanted: torch.Tensor, relative: float) -> bool:
    return bool((made - wanted).abs().max() <= relative * wanted.abs().max())


@pytest.mark.parametrize("rows_at_once", [1, 8, ROWS, 1000])
@pytest.mark.parametrize("softcapping", [None, 3.0])
@pytest.mark.parametrize("items", [None, 50.0])
def test_loss_and_gradients_are_those_of_the_plain_loss(
    rows_at_once: int, softcapping: float | None, items: float | None
) -> None:
    wanted, made = parts(), parts()
    expected = plain(wanted, items, softcapping, bias=True)
    (3 * expected).backward()
    loss = linear_cross_entropy(
        made["hidden"], made["weight"], targets(), bias=made["bias"], items=items, softcapping=softcapping,
        logits_at_once=rows_at_once * WORDS,
    )  # fmt: skip
    (3 * loss).backward()
    assert close(loss, expected, 1e-6)
    for name, tensor in made.items():
        assert close(tensor.grad, wanted[name].grad, 2e-6), name


def test_what_is_compiled_is_the_same() -> None:
    """Both forms of a chunk, capped and not: the compiled one is the first, eager mode runs the second."""
    for softcapping in (None, 2.0):
        logits = torch.randn(9, WORDS, generator=torch.Generator().manual_seed(1))
        wanted = targets()[:9]
        one = chunk(logits.clone(), wanted, softcapping, True)
        other = chunk_in_place(logits.clone(), wanted, softcapping, True)
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_in_half_precision_it_is_as_near_as_the_plain_loss() -> None:
    """Held against float32: the error is at most that of the plain loss and a half."""
    exact, half, made = parts(), parts(torch.bfloat16), parts(torch.bfloat16)
    plain(exact, None, None, bias=False).backward()
    plain(half, None, None, bias=False).backward()
    linear_cross_entropy(made["hidden"], made["weight"], targets(), logits_at_once=8 * WORDS).backward()
    for name in ("hidden", "weight"):
        error = (made[name].grad.float() - exact[name].grad).norm()
        assert error <= 1.5 * (half[name].grad.float() - exact[name].grad).norm() + 1e-6, name


def test_under_autocast_the_products_are_lowered_and_gradients_are_not() -> None:
    made = parts()
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(made["hidden"], made["weight"], targets())
    loss.backward()
    assert loss.dtype == made["weight"].grad.dtype == torch.float32
    exact = parts()
    plain(exact, None, None, bias=False).backward()
    assert 1e-5 < (made["weight"].grad - exact["weight"].grad).abs().max() < 1e-2


def test_nothing_as_large_as_the_logits_is_kept() -> None:
    """What autograd saves from forward to backward, in elements."""
    kept = []

    def save(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    def saved(loss_of: Any) -> int:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(save, lambda t: t):
            loss_of(parts())
        return sum(kept)

    chunked = saved(lambda p: linear_cross_entropy(p["hidden"], p["weight"], targets(), logits_at_once=4 * WORDS))
    assert chunked <= ROWS * WIDTH + WORDS * WIDTH + 8
    assert saved(lambda p: plain(p, None, None, bias=False)) > ROWS * WORDS


def test_a_frozen_head_gets_no_gradient_and_without_learning_none_is_made() -> None:
    made = parts()
    made["weight"].requires_grad_(False)
    linear_cross_entropy(made["hidden"], made["weight"], targets()).backward()
    assert made["weight"].grad is None and made["hidden"].grad is not None
    with torch.no_grad():
        assert not linear_cross_entropy(made["hidden"], made["weight"], targets()).requires_grad


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
@pytest.mark.parametrize("adapted", [False, True])
def test_a_model_learns_the_same(tmp_path: Path, kind: str, adapted: bool) -> None:
    """Tied and untied heads, capped logits, and under an adapter."""
    from axoc_runtime.models.adapter import add_adapter

    job = make_job(tmp_path, model__kernels="chunked", adapter=LORA if adapted else None)
    changes = {"final_logit_softcapping": 1.5} if kind == "gemma2" else {"tie_word_embeddings": False}
    made = []
    for chunked in (False, True):
        model = tiny(kind, "eager", **changes)
        torch.manual_seed(1)
        model = add_adapter(job, model) if adapted else model
        if chunked:
            use_chunked_loss(job, model)
        made.append(together(model, packed(documents(9, 14, 5), 32)))
    assert_same(*made, relative=3e-6)


def test_without_labels_it_answers_as_before(tmp_path: Path) -> None:
    model, ids = tiny("llama", "eager"), torch.arange(8)[None]
    before = model(input_ids=ids).logits
    use_chunked_loss(make_job(tmp_path), model)
    torch.testing.assert_close(model(input_ids=ids).logits, before)
    assert model(input_ids=ids, labels=ids).logits is None


def test_a_model_with_a_loss_of_its_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="scales its logits"):
        use_chunked_loss(make_job(tmp_path), tiny("granite", "eager", logits_scaling=4.0))
    adapted = tiny("llama", "eager")
    from axoc_runtime.models.adapter import add_adapter

    job = make_job(tmp_path, adapter=LORA | {"targets": ["lm_head"]})
    with pytest.raises(RuntimeFailure, match="no plain linear layer"):
        use_chunked_loss(job, add_adapter(job, adapted))
