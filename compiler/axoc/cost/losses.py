"""What the loss launches in a forward, by its kind (forward.py): head and logits, whole or by chunks."""

from __future__ import annotations

from typing import Final

import numpy as np

from axoc.cost import chunked
from axoc.cost.columns import Floats
from axoc.cost.liger_loss import chunk_rows
from axoc.cost.meter import CASTS, LOSS, PRODUCTS, Kind, Meter
from axoc.cost.operations import Operation
from axoc.cost.preference_head import tiles

FP32: Final = 4.0
COMPILED_PASSES: Final = 4.0
"""Over a chunk's logits: read for the largest, for the sum, and for the gradient, which is written. torch's logsumexp fills the maxima
that are infinite between the first two (torch/_refs, logsumexp), so that Inductor does not see the softmax that it would make in one
reading. Recorded: 725 microseconds for 2,048 rows of 128,256 words, as long as four passes take (rows/h100-kernel-times.jsonl.xz,
packed-1)."""


def _fused_loss(op: Operation, m: Meter) -> None:
    """As measured as a whole; else chunk by chunk: logits, Liger's kernel in place (read twice, written once), both gradients.
    Casts as chunk_bytes in
    head.py tells; the weight's gradient is read and written in its own dtype (addmm into it)."""
    trained, lowers = op.sizes
    fused_loss(m, op.tokens, bool(trained), bool(lowers), op.bytes)


def fused_loss(m: Meter, tokens: Floats, trained: bool, lowers: bool, held_bytes: float) -> None:
    """``held_bytes``: of an element of the weight's gradient."""
    model = m.scenario.model
    hidden, vocabulary = float(model.hidden_size), float(model.vocab_size)
    rows = chunk_rows(tokens, model.hidden_size, model.vocab_size)
    chunks = np.ceil(tokens / rows)
    m.launches = m.launches + chunks * (8.0 if trained else 6.0)
    m.triton = m.triton + chunks
    whole = m.kernels.fused_loss(tokens, hidden, vocabulary, trained=trained)
    if whole is not None and not lowers:
        m.add(LOSS, whole, 1.0)
        return
    element = float(m.scenario.compute_bytes)
    products = m.kernels.matmul("nt", rows, vocabulary, hidden, element)
    products = products + m.kernels.matmul("nn", rows, hidden, vocabulary, element)
    passes = m.kernels.moved(3.0 * rows * vocabulary * element)
    casts = np.zeros(m.rows)
    if trained:  # addmm reads and writes it in its own dtype, a product's kernel only writes, in the compute dtype
        products = products + m.kernels.matmul("tn", vocabulary, hidden, rows, element)
        products = products + m.kernels.moved(hidden * vocabulary * (2.0 * held_bytes - element))
    if lowers:  # the transposed weight for each chunk; the weight itself once
        casts = m.kernels.pointwise("cast", hidden * vocabulary, FP32) * (chunks + 1.0) / chunks
    m.add(PRODUCTS, products * chunks, 1.0)
    m.add(LOSS, passes * chunks)
    m.add(CASTS, casts * chunks)


def _chunked_loss(op: Operation, m: Meter) -> None:
    """Chunk by chunk: logits, what is done to them (COMPILED_PASSES in compiled code), both gradients; that of
    the weight, zeros at first, is added to by its product: in one dtype by the product's own kernel, whose arithmetic hides the
    reading (1.35 ms, where the two products beside it, as large, take 1.26 and 1.42: rows/h100-kernel-times.jsonl.xz, packed-1)."""
    trained, copies = op.sizes
    model, element = m.scenario.model, float(m.scenario.compute_bytes)
    hidden, vocabulary = float(model.hidden_size), float(model.vocab_size)
    rows = chunked.chunk_rows(op.tokens, model.vocab_size)
    chunks = np.ceil(op.tokens / rows)
    products = m.kernels.matmul("nt", rows, vocabulary, hidden, element)
    products = products + m.kernels.matmul("nn", rows, hidden, vocabulary, element)
    each = COMPILED_PASSES * element if m.scenario.compile else 2.0 * element + chunked.EAGER_BYTES
    passes = m.kernels.moved(each * rows * vocabulary)
    if trained:
        products = products + m.kernels.matmul("tn", vocabulary, hidden, rows, element)
        held = float(m.scenario.trainable_bytes)
        m.add(LOSS, m.kernels.pointwise("zero_", hidden * vocabulary, held), 1.0)
        if held != element:
            passes = passes + m.kernels.moved(hidden * vocabulary * (2.0 * held + element))
    if copies:
        m.cast(hidden * vocabulary, FP32, CASTS)
    m.add(PRODUCTS, products * chunks, 1.0)
    m.add(LOSS, passes * chunks, 1.0)
    m.launches = m.launches + chunks * (9.0 if m.scenario.compile else 24.0)


def _log_probabilities(op: Operation, m: Meter) -> None:
    """Tile by tile: the logits, then one kernel that folds them into what is kept of each row (reads them once)."""
    tiled(op, m, passes=1.0, launches=2.0)


def tiled(op: Operation, m: Meter, *, passes: float, launches: float) -> None:
    hidden, vocabulary, _ = op.sizes
    element = float(m.scenario.compute_bytes)
    m.add(PRODUCTS, m.kernels.matmul("nt", op.tokens, vocabulary, hidden, element))
    m.add(LOSS, m.kernels.moved(passes * op.tokens * vocabulary * element))
    m.launches = m.launches + tiles(op.tokens, float(vocabulary)) * launches


def _log_softmax(op: Operation, m: Meter) -> None:
    m.add(LOSS, m.kernels.pointwise("log_softmax", op.elements, op.bytes, op.width))


def _nll(op: Operation, m: Meter) -> None:
    m.tiny(2)


LOSS_KERNELS: Final[dict[str, Kind]] = {
    "log_softmax": _log_softmax,
    "nll": _nll,
    "fused_loss": _fused_loss,
    "chunked_loss": _chunked_loss,
    "log_probabilities": _log_probabilities,
}
