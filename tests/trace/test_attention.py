"""Which attention CUDA would run, and what torch's plain one allocates, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.slow
KIB = 1024
HEADS, LENGTH, HEAD = 8, 64, 16


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def world() -> Any:
    from axoc_runtime.trace.cuda_as_cpu import as_on_cuda
    from axoc_runtime.trace.device import DEVICES

    return as_on_cuda(DEVICES["h100"])


def tensors(torch: Any, batch: int = 2, key_heads: int = 1, head: int = HEAD, dtype: str = "bfloat16") -> list[Any]:
    return [
        torch.zeros(batch, heads, LENGTH, head, dtype=getattr(torch, dtype), requires_grad=True)
        for heads in (HEADS, key_heads, key_heads)
    ]


@pytest.mark.parametrize(
    ("device", "key_heads", "head", "dtype", "masked", "shares", "expected"),
    [
        ("h100", 8, 64, "bfloat16", False, False, "cudnn"),
        ("h100", 1, 64, "bfloat16", True, True, "cudnn"),
        ("a100", 2, 64, "bfloat16", False, True, "flash"),
        ("a100", 8, 64, "bfloat16", True, False, "efficient"),
        ("h100", 1, 64, "bfloat16", True, False, "math"),  # Falcon's one key head, which it does not call shared
        ("a100", 1, 64, "bfloat16", False, False, "math"),
        ("a100", 2, 64, "bfloat16", True, True, "math"),  # a mask, so no flash; shared, so not the efficient one
        ("h100", 2, 64, "float32", False, True, "math"),  # only the efficient one takes fp32
        ("h100", 8, 64, "float32", True, False, "efficient"),
        ("h100", 8, 18, "float32", False, False, "math"),  # rows of no multiple of 16 bytes
        ("h100", 8, 100, "bfloat16", False, False, "flash"),  # it pads
        ("h100", 8, 320, "bfloat16", False, False, "efficient"),
    ],
)
def test_the_kernel_that_sdp_utils_chooses(
    torch: Any, device: str, key_heads: int, head: int, dtype: str, masked: bool, shares: bool, expected: str
) -> None:
    from axoc_runtime.trace.attention import Call, kernel
    from axoc_runtime.trace.device import DEVICES

    mask = torch.ones(2, 1, LENGTH, LENGTH, dtype=torch.bool) if masked else None
    query, key, value = tensors(torch, 2, key_heads, head, dtype)
    call = Call(query, key, value, mask, 0.0, False, None, shares)
    assert kernel(DEVICES[device], call).__name__ == expected


def attend(torch: Any, batch: int, live: Any, **keywords: Any) -> tuple[Any, int]:
    """The result, and bytes that were live before."""
    inputs = tensors(torch, batch)
    torch.zeros(1, 1, 1) @ torch.zeros(1, 1, 1)  # cuBLAS's workspace
    before = live.live
    with live.during("attention"):
        result = torch.nn.functional.scaled_dot_product_attention(*inputs, **keywords)
    return result, before


def test_the_plain_one_holds_its_scores_in_fp32_twice(torch: Any) -> None:
    """In KiB: query, key and value raised, query and its key scaled, the key copied for each head where there are several
    rows; scores, softmax, a byte a score, one a row of scores. The result is written over the softmax."""
    with world() as live:
        _, before = attend(torch, 2, live)
        raised, scaled, keys = 64 + 8 + 8, 64, 64
        scores, everywhere_masked = 256, 64 + 1
        assert live.peaks["attention"] - before == (raised + scaled + keys + 2 * scores + everywhere_masked) * KIB


def test_a_mask_is_there_in_the_dtype_it_came_in(torch: Any) -> None:
    with world() as live:
        _, before = attend(torch, 2, live)
        plain = live.peaks["attention"] - before
    for name, bias in (("attn_mask", 2 * LENGTH * LENGTH * 2), ("is_causal", LENGTH * LENGTH * 4)):
        with world() as live:
            mask = torch.ones(2, 1, LENGTH, LENGTH, dtype=torch.bool)
            _, before = attend(torch, 2, live, **{name: mask if name == "attn_mask" else True})
            assert live.peaks["attention"] - before == plain + bias


@pytest.mark.parametrize(
    ("batch", "keys", "values"),
    [(2, 64, 64), (1, 4, 4)],  # one row's heads are a view of the one head
)
def test_the_plain_one_saves_scores_and_what_made_them(torch: Any, batch: int, keys: int, values: int) -> None:
    """In KiB: the scaled query, the keys and the values it met, the softmax; and the result itself."""
    with world() as live:
        result, before = attend(torch, batch, live)
        assert live.live - before == (batch * (32 + 128 + 16) + keys + values) * KIB
        assert result.requires_grad


def test_the_backward_of_softmax_makes_a_product_of_its_own(torch: Any) -> None:
    """In KiB: what was saved, less the values; the values' gradient; scores: the softmax, its gradient, that of what it was
    taken of, and their product. cuBLAS has another workspace for autograd's thread, which has to be there before."""
    with world() as live:
        result, before = attend(torch, 2, live)
        gradient = torch.zeros_like(result)
        warm = torch.zeros(1, 1, 1, requires_grad=True)
        (warm @ torch.zeros(1, 1, 1)).sum().backward()
        known = live.live - (before + (2 * (32 + 128 + 16) + 64 + 64 + 32) * KIB)
        with live.during("backward"):
            result.backward(gradient)
        saved, both_results, values, scores = 64 + 64, 32 + 32, 8, 256
        assert live.peaks["backward"] - before - known == (saved + both_results + values + 4 * scores) * KIB


def test_autocast_lowers_what_comes_in_and_nothing_inside(torch: Any) -> None:
    with world() as live:
        inputs = tensors(torch, 2, dtype="float32")
        torch.zeros(1, 1, 1) @ torch.zeros(1, 1, 1)
        before = live.live
        with torch.autocast("cpu", torch.bfloat16):
            result = torch.nn.functional.scaled_dot_product_attention(*inputs)
        assert result.dtype == torch.bfloat16
        assert live.live - before == (64 + 64 + 256 + 64 + 32) * KIB  # scores in fp32
