"""Seconds of kernels from a calibration profile: a measured shape gives its own seconds, others what lies between."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Final, cast

import numpy as np

from axoc.cost import liger_loss
from axoc.cost.columns import Bools, Floats
from axoc.cost.datasheet import PASSES, Datasheet
from axoc.cost.surfaces import Curve, Surface
from axoc.cost.tape import Size
from axoc.facts.profile import Profile, Table

NAMES: Final = {4.0: "fp32", 2.0: "bf16", 1.0: "fp8"}
"""Of a dtype, by bytes of an element."""
NONE: Final = Table(columns=(), rows=())
FEWEST_ALIKE: Final = 4
"""Shapes of attention with heads of one size, from which others of it are told."""
SHORT_SECONDS: Final = 1e-3
"""Of a product that is over, batch and all, before the clock falls; of twice as long ones it has."""
MOVED_BY_MUL: Final = 3.0
"""Tensors that an elementwise product reads and writes: kernels that were not measured go at its rate."""


def stacked(*sizes: Size) -> Floats:
    """One row a shape."""
    return np.stack(np.broadcast_arrays(*(np.atleast_1d(np.asarray(s, dtype=np.float64)) for s in sizes)), axis=1)


def lies_odd(layout: str, sizes: Floats, bytes_: float) -> Bools:
    """Products with rows in memory that are no multiple of 16 bytes: neither cp.async nor TMA moves them, and they take five times as
    long (GPT-2's 50,257 words). ``sizes``: m, n, k, one row a product."""
    m, n, k = sizes.T
    along = (m, n) if layout == "tn" else (n, k)
    return cast(Bools, np.any([np.mod(side * bytes_, 16.0) != 0 for side in along], axis=0))


@dataclass(frozen=True, eq=False)
class Measured:
    profile: Profile
    datasheet: Datasheet
    """For ideals, and where a table is missing."""
    _remembered: dict[tuple[object, ...], Floats] = field(default_factory=dict, repr=False)
    """Seconds by kernel and sizes: blocks alike ask for the same ones again and again."""

    @cached_property
    def sustained(self) -> float:
        """What arithmetic takes once it has run for seconds, over what it takes at first: power bounds the clock."""
        if "sustained" not in self.profile.tables:
            return 1.0
        table = self.profile.tables["sustained"]
        return float(table.column("last_seconds")[0] / table.column("first_seconds")[0])

    # --- matrix products

    def matmul(self, layout: str, m: Size, n: Size, k: Size, bytes_: float) -> Floats:
        sizes = stacked(m, n, k)
        key = (layout, bytes_, sizes.tobytes())
        found = self._remembered.get(key)
        if found is None:
            found = self._remembered[key] = self._matmul_seconds(layout, sizes, bytes_)
        return found

    def _slowed(self, seconds: Floats) -> Floats:
        """What running on takes, over what was measured: of the long ones less, as they ran at the lower clock already. The table says
        so: products of a millisecond and less reach 770 TFLOP/s, those of two and more 728, by the same 5% that ``sustained`` shows.
        It is of the measured ones: a long product that is told by short ones is as slow as they are when they run on."""
        short = 1.0 - np.clip(np.log2(seconds / SHORT_SECONDS), 0.0, 1.0)
        return cast(Floats, 1.0 + (self.sustained - 1.0) * short)

    def _matmul_seconds(self, layout: str, sizes: Floats, bytes_: float) -> Floats:
        """float8 products are all of one layout: what lies otherwise is cast into it."""
        layout = "nt" if bytes_ == 1.0 else layout
        if bytes_ == 1.0 and not self.profile.tables["matmul"].where(dtype="fp8").rows:
            m, n, k = sizes.T
            return self.datasheet.matmul(layout, m, n, k, bytes_)
        ideal, odd = self._product(sizes, bytes_), lies_odd(layout, sizes, bytes_)
        even = self._matmuls(NAMES[bytes_], layout, odd=False).seconds(sizes, ideal)
        return (
            np.where(odd, self._matmuls(NAMES[bytes_], layout, odd=True).seconds(sizes, ideal), even)
            if odd.any()
            else even
        )

    def _product(self, sizes: Floats, bytes_: float) -> Floats:
        m, n, k = sizes.T
        return self._ideal(2.0 * m * n * k, bytes_ * (m * n + n * k + m * k), bytes_)

    def _ideal(self, flops: Floats, num_bytes: Floats, bytes_: float = 2.0) -> Floats:
        """``bytes_``: of an element of a product."""
        d = self.datasheet
        return flops / d.product_rate(bytes_) + num_bytes / d.bytes_per_second + d.launch_seconds

    @lru_cache(maxsize=32)  # noqa: B019 (one a process and accelerator)
    def _matmuls(self, dtype: str, layout: str, *, odd: bool) -> Surface:
        """Of one kind of kernel where both were measured."""
        table = self.profile.tables["matmul"].where(dtype=dtype, layout=layout)
        sizes = np.array([row[2:5] for row in table.rows], dtype=np.float64)
        bytes_ = next(b for b, name in NAMES.items() if name == dtype)
        seconds, alike = np.array(table.column("seconds")), lies_odd(layout, sizes, bytes_) == odd
        if alike.any():
            sizes, seconds = sizes[alike], seconds[alike]
        return Surface.over(sizes, seconds * self._slowed(seconds), self._product(sizes, bytes_))

    def grouped(self, rows: Size, experts: float, inner: Size, outer: Size, role: str, bytes_: float) -> Floats:
        """``role``: forward | input_gradient | weight_gradient"""
        sizes = stacked(rows, experts, inner, outer)
        return self._groups(role).seconds(sizes, self._grouped(sizes)) * self.sustained

    def _grouped(self, sizes: Floats) -> Floats:
        rows, experts, inner, outer = sizes.T
        return self._ideal(2.0 * rows * inner * outer, 2.0 * (experts * inner * outer + rows * (inner + outer)))

    @lru_cache(maxsize=4)  # noqa: B019
    def _groups(self, role: str) -> Surface:
        table = self.profile.tables["grouped_matmul"]
        sizes = np.array([row[:4] for row in table.rows], dtype=np.float64)
        return Surface.over(sizes, np.array(table.column(f"{role}_seconds")), self._grouped(sizes))

    # --- attention

    def attention(
        self,
        batch: Size,
        heads: Size,
        kv_heads: Size,
        head_dim: float,
        seq: Size,
        *,
        masked: bool,
        backward: bool,
        fused: bool,
        by_document: bool = False,
        flash_4: bool = False,
    ) -> Floats:
        if not fused:
            return self._plain(batch, heads, head_dim, seq, backward=backward)
        sizes = stacked(batch, heads, kv_heads, head_dim, seq)
        documents = next((t for t in self._tables(by_document, flash_4) if self.profile.tables.get(t, NONE).rows), None)
        surface = (
            self._documents(documents, backward, head_dim)
            if documents
            else self._attentions(masked, backward, by_document, head_dim)
        )
        found = surface.seconds(sizes, self._attended(sizes, masked, backward))
        return found * self.sustained

    def _plain(self, batch: Size, heads: Size, head_dim: float, seq: Size, *, backward: bool) -> Floats:
        """By scores and head size: it makes them all, masked or not."""
        table = self.profile.tables["attention"].where(dtype="bf16", backend="math")
        values = np.array([row[3:8] for row in table.rows], dtype=np.float64)
        measured = np.stack([values[:, 0] * values[:, 1] * values[:, 4] ** 2, values[:, 3]], axis=1)
        seconds = np.array(table.column("backward_seconds" if backward else "forward_seconds"))
        wanted = stacked(batch * heads * seq * seq, head_dim)
        return Surface.over(measured, seconds, measured[:, 0]).seconds(wanted, wanted[:, 0])

    def _attended(self, sizes: Floats, masked: bool, backward: bool) -> Floats:
        batch, heads, kv_heads, head_dim, seq = sizes.T
        flops = 4.0 * batch * heads * seq * seq * head_dim * (1.0 if masked else 0.5)
        moved = 2.0 * batch * seq * head_dim * (2.0 * heads + 2.0 * kv_heads)
        return self._ideal(flops * (2.5 if backward else 1.0), moved * (2.0 if backward else 1.0))

    @lru_cache(maxsize=32)  # noqa: B019
    def _attentions(self, masked: bool, backward: bool, by_document: bool, head_dim: float) -> Surface:
        """Of the backend that torch picks by itself, or of flash attention, whose kernels take documents. A head's size has kernels of
        its own: where it was measured, heads of other sizes tell nothing."""
        mask = "bool" if masked else "causal"
        backend = "flash" if by_document else self._backend(mask)
        table = self.profile.tables["attention"].where(dtype="bf16", mask=mask, backend=backend)
        alike = table.where(head_dim=int(head_dim))
        table = alike if len(alike.rows) >= FEWEST_ALIKE else table
        sizes = np.array([row[3:8] for row in table.rows], dtype=np.float64)
        seconds = np.array(table.column("backward_seconds" if backward else "forward_seconds"))
        return Surface.over(sizes, seconds, self._attended(sizes, masked, backward))

    @staticmethod
    def _tables(by_document: bool, flash_4: bool) -> tuple[str, ...]:
        """Of kernels that take documents; where flash attention 4 was not measured, torch's, which is slower."""
        return (("attention_flash_4",) if flash_4 else ()) + (("attention_varlen",) if by_document else ())

    @lru_cache(maxsize=4)  # noqa: B019
    def _documents(self, name: str, backward: bool, head_dim: float) -> Surface:
        """Of kernels for documents: each so many tokens long, in the place of a row."""
        table = self.profile.tables[name]
        alike = table.where(head_dim=int(head_dim))
        table = alike if len(alike.rows) >= FEWEST_ALIKE else table
        sizes = np.array([(n, h, kv, size, tokens / n) for tokens, n, h, kv, size, *_ in table.rows], dtype=np.float64)
        seconds = np.array(table.column("backward_seconds" if backward else "forward_seconds"))
        return Surface.over(sizes, seconds, self._attended(sizes, False, backward))

    def _backend(self, mask: str) -> str:
        chosen = self.profile.tables["attention_default"].where(dtype="bf16", mask=mask).column("backend")
        return cast(str, max(set(chosen), key=chosen.count))

    # --- bound by memory

    def pointwise(self, kernel: str, elements: Size, bytes_: float, width: Size = 0.0) -> Floats:
        """``width``: of the rows that a kernel goes along."""
        size = np.atleast_1d(np.asarray(elements, dtype=np.float64))
        if kernel not in self._pointwise:  # of a profile made before it was measured
            return self.moved(PASSES.get(kernel, 2.0) * bytes_ * size)
        wide = float(np.max(width))
        key = (kernel, bytes_, wide, size.tobytes())
        found = self._remembered.get(key)
        if found is None:
            found = self._remembered[key] = self._pointwise_seconds(kernel, bytes_, wide, size)
        return found

    def _pointwise_seconds(self, kernel: str, bytes_: float, wide: float, size: Floats) -> Floats:
        cold, warm = self._curves(kernel, NAMES[bytes_], self._width(kernel, wide))
        share = np.clip(2.0 * size * bytes_ / self.profile.cache_bytes, 0.0, 1.0)  # in the cache beside what is written
        return cast(Floats, share * cold.at(size) + (1.0 - share) * warm.at(size))

    @lru_cache(maxsize=512)  # noqa: B019
    def _width(self, kernel: str, wanted: float) -> float:
        found = set(self._pointwise[kernel].column("width"))
        return float(min(found, key=lambda w: abs(np.log(w) - np.log(max(wanted, 1.0))))) if wanted else 0.0

    @lru_cache(maxsize=512)  # noqa: B019
    def _curves(self, kernel: str, dtype: str, width: float) -> tuple[Curve, Curve]:
        table = self._pointwise[kernel].where(dtype=dtype)
        table = table.where(width=int(width)) if width else table
        sizes = [rows * wide for rows, wide in zip(table.column("rows"), table.column("width"), strict=True)]
        return Curve.of(sizes, table.column("cold_seconds")), Curve.of(sizes, table.column("warm_seconds"))

    @cached_property
    def _pointwise(self) -> dict[str, Table]:
        table = self.profile.tables["pointwise"]
        by_kernel: dict[str, list[tuple[Any, ...]]] = {}
        for row in table.rows:
            by_kernel.setdefault(row[0], []).append(row)
        return {name: Table(columns=table.columns, rows=tuple(rows)) for name, rows in by_kernel.items()}

    def moved(self, num_bytes: Size) -> Floats:
        """A kernel that was not measured, at the rate of one that was."""
        return self.pointwise("mul", np.asarray(num_bytes) / (MOVED_BY_MUL * 2.0), 2.0)

    def liger(self, kernel: str, rows: Size, width: Size, bytes_: float, *, passes: float, backward: bool) -> Floats:
        """Norms' backward goes along rows one after the other in each multiprocessor, and takes three times what its bytes do."""
        sizes = stacked(rows, width)
        if not self.profile.tables.get("liger", NONE).where(kernel=kernel).rows:
            return self.moved(passes * bytes_ * sizes.prod(axis=1))
        return self._ligers(kernel, backward).seconds(
            sizes, self._ideal(0.0 * sizes[:, 0], bytes_ * sizes.prod(axis=1))
        )

    @lru_cache(maxsize=16)  # noqa: B019
    def _ligers(self, kernel: str, backward: bool) -> Surface:
        """In bf16; by the bytes of one tensor."""
        table = self.profile.tables["liger"].where(kernel=kernel)
        sizes = np.array([row[1:3] for row in table.rows], dtype=np.float64)
        seconds = np.array(table.column("backward_seconds" if backward else "forward_seconds"))
        return Surface.over(sizes, seconds, self._ideal(0.0 * sizes[:, 0], 2.0 * sizes.prod(axis=1)))

    def dequantize(self, elements: Size, *, nested: bool) -> Floats:
        table = self.profile.tables["nf4_dequantize"].where(double_quantization=nested)
        sizes = [a * b for a, b in zip(table.column("rows"), table.column("columns"), strict=True)]
        return Curve.of(sizes, table.column("seconds")).at(np.atleast_1d(np.asarray(elements, dtype=np.float64)))

    def embedding(self, tokens: Size, width: float, vocabulary: float, bytes_: float, *, backward: bool) -> Floats:
        sizes = stacked(tokens, width, vocabulary)
        return self._embeddings(NAMES[bytes_], backward).seconds(sizes, self._looked_up(sizes, bytes_, backward))

    def _looked_up(self, sizes: Floats, bytes_: float, backward: bool) -> Floats:
        tokens, width, vocabulary = sizes.T
        table = vocabulary * width if backward else 0.0
        return self._ideal(np.zeros(len(sizes)), bytes_ * (2.0 * tokens * width + table))

    @lru_cache(maxsize=4)  # noqa: B019
    def _embeddings(self, dtype: str, backward: bool) -> Surface:
        table = self.profile.tables["embedding"].where(dtype=dtype)
        sizes = np.array([row[1:4] for row in table.rows], dtype=np.float64)
        bytes_ = next(b for b, name in NAMES.items() if name == dtype)
        seconds = np.array(table.column("backward_seconds" if backward else "forward_seconds"))
        return Surface.over(sizes, seconds, self._looked_up(sizes, bytes_, backward))

    def fused_loss(self, tokens: Size, hidden: float, vocabulary: float, *, trained: bool) -> Floats | None:
        """Measured for milliseconds each, as long products were: at the clock of a device that runs on."""
        if not self.profile.tables.get("liger_loss", NONE).rows:
            return None
        sizes = stacked(tokens, hidden, vocabulary)
        return self._fused_losses(trained).seconds(sizes, self._fused(sizes, trained))

    def _fused(self, sizes: Floats, trained: bool) -> Floats:
        d = self.datasheet
        return liger_loss.least_seconds(
            sizes, d.product_rate(2.0), d.bytes_per_second, d.launch_seconds, trained=trained
        )

    @lru_cache(maxsize=2)  # noqa: B019
    def _fused_losses(self, trained: bool) -> Surface:
        table = self.profile.tables["liger_loss"].where(trains_head=trained)
        sizes = np.array([row[:3] for row in table.rows], dtype=np.float64)
        return Surface.over(sizes, np.array(table.column("forward_seconds")), self._fused(sizes, trained))

    def optimizer(self, name: str, elements: Size, tensors: float, bytes_: float) -> Floats:
        table = self.profile.tables["optimizer"].where(name=name, dtype=NAMES[bytes_])
        if not table.rows:
            return self.datasheet.optimizer(name, elements, tensors, bytes_)
        sizes = [a * b for a, b in zip(table.column("tensors"), table.column("elements"), strict=True)]
        # small tensors were launched one by one: what they took was the host's
        largest = max(zip(sizes, table.column("seconds"), strict=True))
        return cast(
            Floats, np.asarray(elements, dtype=np.float64) * largest[1] / largest[0] + self.datasheet.launch_seconds
        )
