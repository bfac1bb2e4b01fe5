"""Live bytes of graphs small enough to count by hand."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


def world() -> Any:
    from axoc_runtime.trace.cuda_as_cpu import as_on_cuda
    from axoc_runtime.trace.device import DEVICES

    return as_on_cuda(DEVICES["h100"])


def test_storages_are_counted_once_and_until_they_are_freed(torch: Any) -> None:
    with world() as live:
        a = torch.zeros(1024)  # 4 KiB
        view = a[10:].view(-1)
        b = a + 1
        assert live.live == 8192
        del a
        assert live.live == 8192  # the view still holds it
        del view
        assert live.live == 4096
        del b
    assert live.live == 0
    assert live.peaks == {"load": 8192}
    assert [e.num_bytes for e in live.events] == [4096, 4096, -4096, -4096]


def test_sizes_are_rounded_to_512(torch: Any) -> None:
    with world() as live:
        kept = torch.zeros(1), torch.zeros(129)
        assert live.live == 512 + 1024
    assert len(kept) == 2


def test_phases_have_their_own_peaks(torch: Any) -> None:
    with world() as live:
        a = torch.zeros(256)
        with live.during("forward"):
            b = a.exp()
            del b
        with live.during("backward"):
            pass
    assert live.peaks == {"load": 1024, "forward": 2048, "backward": 1024}


def test_what_a_graph_saves_lives_until_the_backward(torch: Any) -> None:
    with world() as live:
        x = torch.zeros(256, requires_grad=True)
        y = x.exp()  # saves its result
        z = y.sin()  # saves y
        total = z.sum()
        del y, z
        assert live.live == 1024 + 1024 + 512  # x, y in the graph, and the sum; z is gone
        total.backward()
        assert live.live == 1024 + 1024 + 512  # x, its gradient, the sum


def test_a_second_gradient_is_added_in_place_where_nobody_else_holds_the_first(torch: Any) -> None:
    with world() as live:
        x = torch.zeros(1024, requires_grad=True)
        both = x.exp().sum() + x.exp().sum()
        with live.during("backward"):
            both.backward()
    made = [e for e in live.events if e.phase == "backward" and e.num_bytes == 4096]
    assert len(made) == 2  # a gradient of each exp, and no third tensor for their sum


def test_the_gradient_of_rows_that_an_index_chose_is_added_into_zeros_and_no_copy_of_them(torch: Any) -> None:
    with world() as live:
        x = torch.zeros(16, 64, requires_grad=True)
        chosen = x[torch.arange(16)].sum()
        with live.during("backward"):
            chosen.backward()
        assert x.grad is not None and x.grad.shape == x.shape
    made = [e for e in live.events if e.phase == "backward" and e.num_bytes == 4096]
    assert len(made) == 1  # the chosen rows' gradient is one number, expanded


def test_the_matrix_library_gets_a_workspace_in_each_thread(torch: Any) -> None:
    from axoc_runtime.trace.device import DEVICES, HOPPER_WORKSPACE, LT_WORKSPACE, OTHER_WORKSPACE

    with world() as live:
        a = torch.zeros(16, 16, requires_grad=True)
        before = live.live
        product = a @ a
        assert live.live - before == 1024 + HOPPER_WORKSPACE
        product.sum().backward()
        assert live.live - before == 2 * 1024 + 2 * HOPPER_WORKSPACE  # and the gradient
        bias = torch.zeros(16)
        before = live.live
        biased = torch.nn.functional.linear(a.detach(), a.detach(), bias)
        assert live.live - before == 1024 + LT_WORKSPACE
    assert biased.shape == (16, 16)
    assert DEVICES["a100"].blas_workspace_bytes == OTHER_WORKSPACE == 8_519_680


def test_sums_over_rows_hold_what_an_h100_was_seen_to_hold() -> None:
    from axoc_runtime.trace.device import DEVICES
    from axoc_runtime.trace.reduction import buffer_bytes

    assert buffer_bytes(2048, 2048, DEVICES["h100"]) == 32 << 20
    assert buffer_bytes(64, 4, DEVICES["h100"]) == 0


@pytest.mark.parametrize(
    ("shape", "key_heads", "workspace"),
    [  # bytes that cuDNN's backward asked for on an H100, torch 2.11
        ((1, 32, 2048, 128), 8, 67_371_264),
        ((2, 24, 2048, 128), 8, 101_056_768),
        ((1, 32, 2048, 128), 32, 33_816_832),
        ((1, 8, 2048, 256), 4, 33_620_224),
        ((1, 14, 4096, 64), 2, 29_589_760),
        ((1, 32, 1000, 96), 32, 12_416_256),
    ],
)
def test_attention_holds_what_an_h100_was_seen_to_hold(
    torch: Any, shape: tuple[int, ...], key_heads: int, workspace: int
) -> None:
    from axoc_runtime.trace.liveness import rounded

    batch, heads, length, head = shape
    with world() as live:
        query = torch.zeros(batch, length, heads, head, dtype=torch.bfloat16).transpose(1, 2).requires_grad_()
        key = torch.zeros(batch, length, key_heads, head, dtype=torch.bfloat16).transpose(1, 2).requires_grad_()
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, key, is_causal=True, enable_gqa=heads != key_heads
        )
        gradient = torch.zeros_like(out)
        with live.during("backward"):
            out.backward(gradient)
        assert rounded(workspace) in [e.num_bytes for e in live.events if e.phase == "backward"]


def test_what_was_done_apart_is_counted_as_if_it_came_now(torch: Any) -> None:
    def work() -> None:
        with live.during("evaluate"):
            a = torch.zeros(1024)
            b = a + 1
            del a
            live.scratch(2048)
            kept.append(b)

    kept: list[Any] = []
    with world() as live:
        held = torch.zeros(256)
        apart = live.apart(work, "evaluate")
        assert apart.peak_bytes == 8192 and apart.blocks == 3
        alone = live.events[1:]
        kept.clear()
        more = torch.zeros(512)
        at, began = len(live.events), live.events[-1].block
        live.take(apart, "evaluate")
        assert [e._replace(block=e.block - began) for e in live.events[at:]] == [
            e._replace(block=e.block - 1) for e in alone
        ]
        assert live.peaks["evaluate"] == 1024 + 2048 + 8192
        after = torch.zeros(128)
        assert live.events[-1].block == began + 4, "blocks' numbers go on after those that were taken"
        with pytest.raises(ValueError, match="freed"):
            live.apart(lambda: kept.append(live.resize(held.untyped_storage(), 0)), "load")
        del more, after
