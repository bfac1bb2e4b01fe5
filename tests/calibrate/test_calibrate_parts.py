"""The script's parts that need no measuring: shapes, the fill loop, the writing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from axoc_runtime.calibrate import attention, check, matmul, profile, shapes, tables
from axoc_runtime.calibrate.clock import CpuClock, now
from axoc_runtime.calibrate.progress import Bar

CLOCK: Any = SimpleNamespace(release=lambda: None)


def make(points: Sequence[tuple[Any, ...]], measure: Any) -> tables.Table:
    return tables.Table(name="t", about="", keys=("n",), values=("seconds",), points=points, measure=measure)


def test_roles_multiply_to_the_same_work() -> None:
    for layout, m, n, k in matmul.roles(2048, 4096, 14336):
        assert m * n * k == 2048 * 4096 * 14336, layout
    assert [r[0] for r in matmul.roles(8, 16, 32)] == ["nt", "nn", "tn"]
    assert matmul.roles(8, 16, 32)[2] == ("tn", 32, 16, 8)


def test_the_common_models_own_shapes_are_measured() -> None:
    points = set(matmul.table(small=False).points)
    llama_8b = shapes.PUBLISHED["llama-3-8b"].linears()
    assert llama_8b == ((4096, 4096), (4096, 1024), (4096, 4096), (4096, 14336), (14336, 4096))
    for width_in, width_out in llama_8b:
        assert {("bf16", *role) for role in matmul.roles(8192, width_in, width_out)} <= points
    assert len(points) == len(matmul.table(small=False).points)


def test_a_point_that_fails_is_left_out_with_its_reason() -> None:
    def measure(clock: Any, point: Any) -> tuple[float]:
        if point[0] == 2:
            raise RuntimeError("no kernel\nmore")
        return (0.123456789,)

    filled = tables.fill(make([(1,), (2,), (3,)], measure), CLOCK, now() + 60, Bar(3, quiet=True))
    assert filled.missing == ["2: no kernel"]
    assert filled.to_dict()["rows"] == [[1, 0.12346], [3, 0.12346]]


def test_a_programming_error_is_not_hidden() -> None:
    def measure(clock: Any, point: Any) -> tuple[float]:
        raise AssertionError("a bug")

    with pytest.raises(AssertionError):
        tables.fill(make([(1,)], measure), CLOCK, now() + 60, Bar(1, quiet=True))


def test_rows_are_written_one_a_line() -> None:
    made = {"a": [], "rows": [["x, y", 1.5, None], ["]", 2, True]], "b": {"c": ["one", "two"]}}
    text = profile.dumps(made)
    assert json.loads(text) == made
    assert '["x, y", 1.5, null],' in text


def test_the_stream_holds_what_launches_something() -> None:
    x = torch.ones(4, 4)
    with check.Stream() as stream:
        y = x.t().reshape(2, 8)  # a view, then a copy of it
        z = y + torch.empty(2, 8)
        z.add_(1)
        y + z
    found = {key.split()[0]: op.count for key, op in stream.found.items()}
    assert found == {"aten.clone.default": 1, "aten.add.Tensor": 2, "aten.add_.Tensor": 1}


def test_keys_and_values_are_repeated_where_varlen_attn_takes_no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.nn.attention.varlen as varlen

    seen = []

    def without_groups(q: Any, k: Any, v: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, *, is_causal: bool) -> Any:
        seen.append((q.shape, k.shape, v.shape, max_q))
        return q * k * v

    monkeypatch.setattr(varlen, "varlen_attn", without_groups)
    forward, backward = attention.varlen_table(small=True).measure(CpuClock(), (64, 4, 8, 2, 16))
    assert forward > 0 and backward > 0
    assert set(seen) == {((64, 8, 16), (64, 8, 16), (64, 8, 16), 16)}


def test_what_only_compares_is_measured_at_one_length() -> None:
    """Without a device the picked backend is flash; the others cost time and are never looked up."""
    points = attention.table(small=False).points
    assert {p[-1] for p in points if p[0] == "cudnn" and p[2] == "causal"} == {attention.COMPARED}
    assert {p[-1] for p in points if p[0] == "flash"} >= {512, 1024, 4096, 8192}
    assert len(points) == len(set(points)) < 170


def test_kernels_of_whole_blocks_come_before_the_long_tables() -> None:
    names = [t.name for t in profile.tables("cpu", small=True)]
    assert names.index("liger_loss") < names.index("attention") < names.index("matmul") < names.index("host_models")
