"""Flash attention 4 as the runtime calls it. Its kernels need CUDA: in their place stands plain attention with the package's own
names, so that what is handed over, kept and handed back is tested, compiled too."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from axoc_runtime.attention import BACKENDS, Heads, implementation_of, obstacles, varlen
from axoc_runtime.attention.backends import installed
from axoc_runtime.attention.register import register_varlen
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.preflight.packages import distribution, packages

from runtime.jobs import make_job
from runtime.packs import apart, assert_same, documents, packed, tiny, together

NAME = "flash_attention_4"


def weights(q: Any, k: Any, given: dict[str, Any]) -> Iterator[tuple[slice, torch.Tensor]]:
    """Of each document its tokens and [heads, tokens, tokens] weights of plain attention."""
    ends, left = given["cu_seqlens_q"].tolist(), given["window_size_left"]
    for start, end in pairwise(ends):
        at, count = slice(start, end), end - start
        keys = k[at].repeat_interleave(q.shape[1] // k.shape[1], 1)
        scores = torch.einsum("qhd,khd->hqk", q[at], keys) * scale_of(q, given)
        ahead = torch.arange(count)[None] - torch.arange(count)[:, None]
        hidden = (ahead > 0) | (ahead < -(count if left is None else left))
        yield at, scores.masked_fill(hidden, -torch.inf).softmax(-1)


def scale_of(q: Any, given: dict[str, Any]) -> float:
    return float(given["softmax_scale"] or q.shape[2] ** -0.5)


def forward(q: Any, k: Any, v: Any, **given: Any) -> tuple[Any, ...]:
    assert given["causal"] and given["return_lse"] and given["cu_seqlens_q"] is given["cu_seqlens_k"]
    assert given["max_seqlen_q"] == given["max_seqlen_k"] >= int(given["cu_seqlens_q"].diff().max())
    values, out = v.repeat_interleave(q.shape[1] // v.shape[1], 1), torch.empty_like(q)
    for at, shares in weights(q, k, given):
        out[at] = torch.einsum("hqk,khd->qhd", shares, values[at])
    return out, torch.zeros(q.shape[1], q.shape[0]), None, None, None


def backward(q: Any, k: Any, v: Any, out: Any, gradient: Any, sums: Any, **given: Any) -> tuple[Any, ...]:
    assert given["causal"] and sums.shape == (q.shape[1], q.shape[0]) and out.shape == gradient.shape
    many, scale = q.shape[1] // k.shape[1], scale_of(q, given)
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    for at, shares in weights(q, k, given):
        keys, values = (t[at].repeat_interleave(many, 1) for t in (k, v))
        of_shares = torch.einsum("qhd,khd->hqk", gradient[at], values)
        of_scores = shares * (of_shares - (of_shares * shares).sum(-1, keepdim=True)) * scale
        dq[at] = torch.einsum("hqk,khd->qhd", of_scores, keys)
        dk[at] = grouped(torch.einsum("hqk,qhd->khd", of_scores, q[at]), many)
        dv[at] = grouped(torch.einsum("hqk,qhd->khd", shares, gradient[at]), many)
    return dq, dk, dv


def grouped(gradient: torch.Tensor, many: int) -> torch.Tensor:
    return gradient.unflatten(1, (-1, many)).sum(2)


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    register_varlen()  # with transformers, which looks for packages of this name
    interface = ModuleType("flash_attn.cute.interface")
    interface._flash_attn_fwd, interface._flash_attn_bwd = forward, backward  # type: ignore[attr-defined]
    for name in ("flash_attn", "flash_attn.cute"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    monkeypatch.setattr(varlen, "obstacles", lambda *_: [])
    yield


@pytest.mark.parametrize("changes", [{}, {"num_key_value_heads": 4}, {"sliding_window": 6}])
def test_packed_documents_have_the_gradients_they_have_alone(changes: dict[str, Any]) -> None:
    kind = "mistral" if "sliding_window" in changes else "llama"
    found = documents(5, 17, 3, 11)
    reference = apart(tiny(kind, "eager", **changes), found)
    assert_same(reference, together(tiny(kind, BACKENDS[NAME].implementation, **changes), packed(found, 48)))


@pytest.mark.slow
def test_compiled_blocks_hold_it_whole() -> None:
    found = documents(5, 17, 3, 11)
    model = tiny("llama", BACKENDS[NAME].implementation)
    reference = together(tiny("llama", BACKENDS[NAME].implementation), packed(found, 48))
    for layer in model.model.layers:
        layer.forward = torch.compile(layer.forward, backend="aot_eager", fullgraph=True)
    assert_same(reference, together(model, packed(found, 48)))


def test_without_the_package_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flash_attn", "flash_attn.cute", "flash_attn.cute.interface"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert not installed("flash_attn.cute")
    job = make_job(tmp_path, model__attention=NAME)
    with pytest.raises(RuntimeFailure, match=r"needs the package flash_attn\.cute"):
        implementation_of(job)
    assert "flash_attn.cute" in packages(job) and distribution("flash_attn.cute") == "flash-attn-4"


def test_what_it_runs_on() -> None:
    heads = Heads(size=64)
    assert obstacles(BACKENDS[NAME], heads, "bfloat16", (9, 0)) == []
    assert "needs CUDA capability 9.0" in obstacles(BACKENDS[NAME], heads, "bfloat16", (8, 6))[0]
