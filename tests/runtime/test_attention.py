"""Packed documents have the gradients they have alone, with every backend, with groups, windows and capped scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from axoc_runtime.attention import BACKENDS, Heads, implementation_of, obstacles
from axoc_runtime.attention.register import register_varlen
from axoc_runtime.attention.varlen import varlen_attention
from axoc_runtime.errors import RuntimeFailure

from runtime.jobs import make_job
from runtime.packs import apart, assert_same, documents, packed, tiny, together

pytestmark = pytest.mark.slow

WINDOW = 6
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama without groups": ("llama", {"num_key_value_heads": 4}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "mistral with a window": ("mistral", {"sliding_window": WINDOW}),
    "gemma2": ("gemma2", {"sliding_window": WINDOW, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 2.0}),
    "gemma3": ("gemma3_text", {"sliding_window": WINDOW, "query_pre_attn_scalar": 16}),
}


@pytest.fixture(autouse=True)
def registered() -> None:
    register_varlen()


@pytest.mark.parametrize("backend", ["varlen", "eager", "sdpa"])
@pytest.mark.parametrize("name", MODELS)
def test_packed_documents_have_the_gradients_they_have_alone(name: str, backend: str) -> None:
    kind, changes = MODELS[name]
    if backend == "sdpa" and "attn_logit_softcapping" in changes:
        pytest.skip("SDPA cannot cap scores")
    found = documents(5, 17, 3, 11)
    reference = apart(tiny(kind, "eager", **changes), found)
    model = tiny(kind, BACKENDS[backend].implementation, **changes)
    assert_same(reference, together(model, packed(found, 48)))


def test_what_crosses_a_boundary_is_seen() -> None:
    """One document more in the place of two: were attention to leak, the test above could not tell."""
    found = documents(5, 17, 3, 11)
    model = tiny("llama", "axoc_varlen")
    batch = packed(found, 48)
    joined = batch | {"cu_seq_lens_q": torch.tensor([0, 22, 25, 36, 48], dtype=torch.int32)}
    with pytest.raises(AssertionError):
        assert_same(together(model, batch), together(model, joined))


def test_rows_without_boundaries_are_documents_and_padding_is_masked() -> None:
    model, reference = (
        tiny("mistral", "axoc_varlen", sliding_window=WINDOW),
        tiny("mistral", "eager", sliding_window=WINDOW),
    )
    ids = torch.randint(1, 97, (3, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    for options in ({}, {"attention_mask": mask}):
        seen = mask.bool() if options else torch.ones_like(ids, dtype=torch.bool)
        made, wanted = model(input_ids=ids, **options).logits[seen], reference(input_ids=ids, **options).logits[seen]
        torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)


def test_capped_scores_of_padded_rows() -> None:
    changes = MODELS["gemma2"][1]
    model, reference = tiny("gemma2", "axoc_varlen", **changes), tiny("gemma2", "eager", **changes)
    ids = torch.randint(1, 97, (2, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    made, wanted = (m(input_ids=ids, attention_mask=mask).logits[mask.bool()] for m in (model, reference))
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)


def test_under_autocast_attention_is_lowered() -> None:
    """Rotary embeddings raise queries and keys to float32, which flash attention does not take."""
    seen = []

    def kernel(query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> Any:
        seen.append({query.dtype, key.dtype, value.dtype})
        return query

    shape = (1, 2, 8, 16)
    query, value = torch.ones(shape), torch.ones(shape, dtype=torch.bfloat16)
    patch = pytest.MonkeyPatch()
    with patch.context() as changed, torch.autocast("cpu", torch.bfloat16):
        changed.setattr("axoc_runtime.attention.varlen.by_document", kernel)
        varlen_attention(torch.nn.Module(), query, query, value, None)
    assert seen == [{torch.bfloat16}]


@pytest.mark.parametrize(
    ("heads", "dtype", "capability", "reason"),
    [
        (Heads(size=64), "bfloat16", None, "needs a CUDA device"),
        (Heads(size=64), "bfloat16", (7, 5), "needs CUDA capability 8.0, this is 7.5"),
        (Heads(size=64), "float32", (9, 0), "not in float32"),
        (Heads(size=65), "bfloat16", (9, 0), "heads of 65"),
        (Heads(size=512), "bfloat16", (9, 0), "heads of 512"),
        (Heads(size=64, softcapping=50.0), "bfloat16", (9, 0), "cannot cap scores"),
        (Heads(size=64, dropout=0.1), "bfloat16", (9, 0), "no dropout"),
    ],
)
def test_what_varlen_cannot_do(heads: Heads, dtype: str, capability: Any, reason: str) -> None:
    found = obstacles(BACKENDS["varlen"], heads, dtype, capability)
    assert len(found) == 1 and reason in found[0]
    assert not obstacles(BACKENDS["varlen"], Heads(size=128, sliding_window=4096), "bfloat16", (9, 0))


def test_the_installed_varlen_takes_what_is_given_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel itself needs CUDA; its arguments are held against torch's signature and its checks."""
    given = {}

    def op(*args: Any) -> Any:
        given["args"] = args
        return args[0], None, None

    monkeypatch.setattr(torch.ops.torch_attn, "_varlen_attn", op)
    from axoc_runtime.attention.varlen import _kernel

    query, key = torch.ones(6, 4, 8), torch.ones(6, 2, 8)
    ends = torch.tensor([0, 2, 6], dtype=torch.int32)
    _kernel(query, key, key, ends, 6, 0.25, 3)
    plain = [a for a in given["args"] if not isinstance(a, torch.Tensor)]
    assert plain[:6] == [6, 6, False, 0.25, [2, 0], True]  # longest twice, causal by the window, scale, window, groups


def test_a_backend_that_is_not_here_is_refused(tmp_path: Path) -> None:
    refused = {"flash_attention_3": "needs the package", "magic": "knows no attention", "flex": "needs a CUDA device"}
    for name, message in refused.items():
        with pytest.raises(RuntimeFailure, match=message):
            implementation_of(make_job(tmp_path, model__attention=name))
    on_gpu = make_job(tmp_path, model__attention="flex", distributed__device="cuda")
    assert implementation_of(on_gpu) == "flex_attention"
    assert implementation_of(make_job(tmp_path, model__attention="varlen")) == "axoc_varlen"
