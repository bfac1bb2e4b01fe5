"""Answers from memory are those of torch's own fake tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .shapes import LLAMA, MIXTRAL, job

pytestmark = pytest.mark.slow


def modes() -> tuple[Any, Any]:
    from axoc_runtime.trace.remembered import RememberingMode
    from torch._subclasses.fake_tensor import FakeTensorMode

    return RememberingMode(), FakeTensorMode(allow_non_fake_inputs=True)


def seen(value: Any, given: list[Any]) -> Any:
    """All there is to a fake tensor, and which of ``given`` it shares memory with."""
    if isinstance(value, (list, tuple)):
        return [seen(v, given) for v in value]
    if not hasattr(value, "fake_device"):
        return value
    storage = value.untyped_storage()
    owners = [i for i, t in enumerate(given) if t.untyped_storage()._cdata == storage._cdata]
    attributes = {k: v for k, v in vars(value).items() if k not in ("fake_mode", "axoc_ordinary")}
    form = (value.dtype, value.shape, value.stride(), value.storage_offset(), value.device)
    return (form, storage.nbytes(), owners, [value is t for t in given], value.requires_grad, value.is_leaf, attributes)


def operations(torch: Any) -> dict[str, Callable[[Any, Any], Any]]:
    return {
        "a new tensor": lambda a, b: a + b,
        "a sum of one twice": lambda a, b: a + a,
        "an int and a float": lambda a, b: (b.to(torch.int64) + 1, b.to(torch.int64) + 1.0),
        "in place": lambda a, b: a.add_(b),
        "a view": lambda a, b: a.view(-1)[3:7],
        "a view of a view": lambda a, b: a[1:].t()[2:],
        "several views": lambda a, b: a.chunk(2),
        "a view in disguise": lambda a, b: torch.ops.aten._unsafe_view(a, [-1]),
        "a copy or not": lambda a, b: (a.contiguous(), a.t().contiguous()),
        "another dtype": lambda a, b: a.to(torch.bfloat16),
        "several tensors": lambda a, b: torch.native_layer_norm(a, [6], None, None, 1e-5),
        "a list": lambda a, b: torch._foreach_mul([a, b], 2.0),
        "a named tuple": lambda a, b: a.max(dim=0),
        "with a hole": lambda a, b: torch.nn.functional.nll_loss(a, torch.zeros(4, dtype=torch.int64)),
        "a factory": lambda a, b: torch.full((2, 3), 1.5),
        "a resized one": lambda a, b: (a + b).resize_(2, 2),
        "transposed in place": lambda a, b: (a + b).t_(),
        "a gradient": lambda a, b: torch.autograd.grad((a.requires_grad_() * b).sum(), a),
    }


def test_each_kind_of_operation(subtests: Any) -> None:
    torch = pytest.importorskip("torch")
    remembering, plain = modes()
    for name, run in operations(torch).items():
        with subtests.test(name):
            found = []
            for mode in (plain, remembering, remembering, remembering):
                with mode:
                    a, b = torch.zeros(4, 6), torch.zeros(4, 6)
                    found.append(seen(run(a, b), [a, b]))
            assert found[1:] == [found[0]] * 3


def test_what_differs_is_not_mistaken() -> None:
    torch = pytest.importorskip("torch")
    remembering, _ = modes()
    with remembering:
        for _ in range(2):
            whole = torch.zeros(4, dtype=torch.int64)
            assert (whole + 1).dtype == torch.int64 and (whole + 1.0).dtype == torch.float32
            assert (whole + True).dtype == torch.int64
            wide = torch.zeros(4, 6)
            assert wide.t().contiguous().stride() == (4, 1) and wide.contiguous() is wide
            torch.set_default_dtype(torch.bfloat16)
            try:
                assert torch.zeros(2).dtype == torch.bfloat16
            finally:
                torch.set_default_dtype(torch.float32)
            assert torch.zeros(2).dtype == torch.float32


@pytest.mark.parametrize("config", [LLAMA, MIXTRAL], ids=["llama", "mixtral"])
def test_a_trace_is_the_same_without_memory(tmp_path: Path, monkeypatch: Any, config: dict[str, Any]) -> None:
    from axoc_runtime.trace import cuda_as_cpu
    from axoc_runtime.trace.device import DEVICES
    from axoc_runtime.trace.remembered import UNKNOWN
    from axoc_runtime.trace.step import trace_depth
    from torch._subclasses.fake_tensor import FakeTensorMode

    made = job(tmp_path, config, training__gradient_checkpointing="full", model__dtype="bfloat16")
    shallow = {**config, "num_hidden_layers": 3}
    quick = trace_depth(made, shallow, DEVICES["h100"], 1)
    forgetful: Any = FakeTensorMode(allow_non_fake_inputs=True)
    forgetful.remembered, forgetful.answered = lambda *operation: UNKNOWN, None
    monkeypatch.setattr(cuda_as_cpu, "RememberingMode", lambda: forgetful)
    slow = trace_depth(made, shallow, DEVICES["h100"], 1)
    assert quick.phases == slow.phases
    assert quick.launches == slow.launches
    assert [e.num_bytes for e in quick.events if e.num_bytes > 0] == [
        e.num_bytes for e in slow.events if e.num_bytes > 0
    ]


def test_micro_batches_after_the_second_change_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    from axoc_runtime.trace import step
    from axoc_runtime.trace.device import DEVICES

    def traced(number: int) -> Any:
        made = job(tmp_path, LLAMA, training__gradient_accumulation_steps=number)
        return step.trace_depth(made, {**LLAMA, "num_hidden_layers": 3}, DEVICES["h100"], 1)

    short, two = traced(4), traced(2)
    assert (
        len(short.events) - len(two.events) == 2 * 2 * 2 * 2
    )  # ids and labels of two more are born and die in both steps
    assert (
        short.phases["backward_first"] - two.phases["backward_first"] == 2 * 2 * 2 * 64 * 8
    )  # and are there all along
    monkeypatch.setattr(step, "MICRO_BATCHES", 4)
    whole = traced(4)
    assert len(whole.events) > len(short.events)
    assert whole.phases == short.phases
