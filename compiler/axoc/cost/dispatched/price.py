"""Seconds of each operation that torch dispatched, by its name and the shapes it was given and gave.

Kernels that were measured are asked of by their names in forward.py; all else reads what it is given and writes what it gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from axoc.cost.columns import Columns
from axoc.cost.dispatched import elementwise, named, products
from axoc.cost.dispatched.operation import Given
from axoc.cost.meter import Meter


def price(op: Given, m: Meter, c: Columns) -> None:
    """Adds what the operation takes to the meter."""
    namespace, _, name = op.name.partition(".")
    if namespace in ("torch_attn", "axoc") or "scaled_dot_product" in name:
        products.attention(op, m, c)
    elif op.name in OWN:
        OWN[op.name](op, m)
    elif namespace == "aten" and name.rstrip("_") in ATEN and (name in SEVERAL or _floating(op)):
        ATEN[name.rstrip("_")](op, m)
    elif namespace in ("aten", "bitsandbytes", "prims"):
        m.moved(op.num_bytes)


def _floating(op: Given) -> bool:
    """Kernels on integers were not measured."""
    return all(t.bytes in (2.0, 4.0) for t in op.outputs[:1])


ATEN: Final[dict[str, Callable[[Given, Meter], None]]] = {
    "mm": products.mm,
    "bmm": products.mm,
    "addmm": products.addmm,
    "baddbmm": products.addmm,
    "_grouped_mm": products.grouped,
    "mul": elementwise.mul,
    "add": elementwise.add,
    "sub": elementwise.add,
    "div": elementwise.mul,
    "_to_copy": elementwise.copied,
    "copy": elementwise.copied,
    "clone": elementwise.copied,
    "silu": elementwise.activation("silu"),
    "silu_backward": elementwise.activation("silu_backward"),
    "gelu": elementwise.activation("gelu_tanh"),
    "gelu_backward": elementwise.activation("gelu_tanh_backward"),
    "tanh": elementwise.flat("tanh"),
    "tanh_backward": elementwise.flat("tanh_backward"),
    "neg": elementwise.flat("neg"),
    "pow": elementwise.power,
    "mean": elementwise.mean,
    "sum": elementwise.summed,
    "cat": elementwise.cat,
    "slice_backward": elementwise.slice_backward,
    "select_backward": elementwise.slice_backward,
    "zeros": elementwise.zeros,
    "zeros_like": elementwise.zeros,
    "new_zeros": elementwise.zeros,
    "zero": elementwise.zeros,
    "native_dropout": elementwise.dropout,
    "native_layer_norm": elementwise.along("layer_norm"),
    "native_layer_norm_backward": elementwise.layer_norm_backward,
    "_softmax": elementwise.along("softmax"),
    "_safe_softmax": elementwise.safe_softmax,
    "_softmax_backward_data": elementwise.softmax_backward,
    "_log_softmax": elementwise.loss("log_softmax"),
    "_log_softmax_backward_data": elementwise.loss("log_softmax_backward"),
    "nll_loss_forward": elementwise.nll,
    "nll_loss_backward": elementwise.nll_backward,
    "embedding": elementwise.embedding,
    "embedding_dense_backward": elementwise.embedding_backward,
    "sort": elementwise.few(8),
    "topk": elementwise.few(1),
    "index": elementwise.gathered,
    "index_select": elementwise.gathered,
    "gather": elementwise.gathered,
    "index_put": elementwise.put,
    "_unsafe_index_put": elementwise.put,
    "masked_fill": elementwise.filled,
}
SEVERAL: Final = frozenset({"sort", "topk"})
"""Of several kernels, whatever they are given."""
OWN: Final[dict[str, Callable[[Given, Meter], None]]] = {
    "attention.mask": products.mask,
    "triton": named.triton,
    "dequantize": products.dequantize,
    "bitsandbytes.gemm_4bit": products.four_bit_product,
    "bitsandbytes.dequantize_4bit": products.dequantize_made,
    "liger.norm": named.liger("rms_norm", 2.0),
    "liger.norm_backward": named.norm_backward,
    "liger.gated": named.liger("gated", 3.0),
    "liger.gated_backward": named.liger("gated", 5.0, backward=True),
    "liger.rotation": named.rotation,
    "liger.loss": named.whole_loss,
    "liger.scaled": named.scaled,
}
