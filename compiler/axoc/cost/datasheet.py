"""Seconds of kernels from an accelerator's datasheet: a roofline, with shares that public measurements sustain.

The largest product any shape reaches is a share of the dense rate that differs by generation, with what power and scheduling
allow; a model's products reach a little less. Copies reach 0.85 to 0.92 of the bandwidth on Hopper and Ampere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from axoc.cost.columns import Floats
from axoc.cost.tape import Size

BEST_PRODUCT_SHARE: Final = {"ampere": 0.859, "hopper": 0.801, "blackwell": 0.776, "cdna2": 0.767, "cdna3": 0.601}
"""Of the dense bf16 rate, by the best shape of a wide search on one accelerator: A100 SXM, H100 SXM, B200, MI250X, MI300X
(github.com/stas00/ml-engineering, compute/accelerator, "Maximum Achievable Matmul FLOPS comparison table")."""
OF_THE_BEST: Final = 0.9
"""Of that rate, what a model's own products reach: 0.72 of an H100's dense rate, as its profile has it."""
MATMUL_SHARE: Final = OF_THE_BEST * BEST_PRODUCT_SHARE["hopper"]
"""Where the generation has no measured share."""
CPU_MATMUL_SHARE: Final = 0.6
BANDWIDTH_SHARE: Final = 0.85
ATTENTION_SHARE: Final = {64: 0.40, 128: 0.60, 256: 0.50}
"""Of the dense rate, by head size, forward and causal: allowances under what FlashAttention-3 reports for Hopper at long
rows (up to 0.75, https://arxiv.org/abs/2407.08608)."""
FLASH_2_SHARE: Final = 0.35
"""Of FlashAttention 2, which torch's kernels for documents are, from Hopper on: its instructions are those of the generation
before (https://arxiv.org/abs/2407.08608, abstract: "only 35% utilization on the H100 GPU")."""
BACKWARD_SHARE: Final = 0.75
"""Of the forward's rate: its five products overlap less with the softmax."""
CPU_ATTENTION_SHARE: Final = 0.3
SCORE_BYTES: Final = 24.0
"""Of each score of plain attention in fp32, forward or backward: written by a product, read and written by mask and softmax,
read by the next product (ATen/native/transformers/attention.cpp, _scaled_dot_product_attention_math)."""
LAUNCH_SECONDS: Final = 2.2e-6
"""The least a kernel takes from the one before to the one after."""
PASSES: Final = {
    "copy": 2.0,
    "add": 3.0,
    "add_": 3.0,
    "mul": 3.0,
    "silu_backward": 3.0,
    "layer_norm_backward": 5.0,
}
"""Tensors that a kernel reads and writes; 2 where it is not here."""
STATE_PASSES: Final = {"sgd": 3.0, "adamw_torch_fused": 7.0, "adamw_torch": 16.0, "muon": 6.0}
"""Of an optimizer's step, tensors of a parameter's size read and written: weight and gradient, and the states twice;
torch's unfused AdamW goes over them in several kernels (torch/optim/adamw.py, _multi_tensor_adamw)."""
BLOCKWISE_BYTES: Final = 90.0
"""A parameter, as long as which bitsandbytes' 8-bit AdamW takes: it is bound by arithmetic on blocks. By the H100's profile
(table ``optimizer``: 30 ps a parameter), for want of one of each accelerator."""
ADAFACTOR_BYTES: Final = 90.0
"""The same of transformers' Adafactor: some twenty kernels in fp32 over each matrix (optimization.py, step)."""


@dataclass(frozen=True, kw_only=True)
class Datasheet:
    flops_per_second: float
    """Dense, of the dtype that products run in."""
    float32_flops_per_second: float
    """Dense and exact, without tf32."""
    bytes_per_second: float
    cpu: bool
    recent: bool = False
    """Of compute capability 9.0 or above: Hopper and what came after it."""
    architecture: str = ""
    float8_flops_per_second: float | None = None
    """None where it has no such products: they run at the other dtype's rate."""

    @property
    def product_share(self) -> float:
        """Of the dense rate, that large matrix products sustain."""
        if self.cpu:
            return CPU_MATMUL_SHARE
        best = BEST_PRODUCT_SHARE.get(self.architecture)
        return MATMUL_SHARE if best is None else OF_THE_BEST * best

    def product_rate(self, bytes_: float) -> float:
        """Dense FLOP/s, by bytes of an element."""
        if bytes_ > 2.0:
            return self.float32_flops_per_second
        return self.flops_per_second if bytes_ > 1.0 else self.float8_flops_per_second or self.flops_per_second

    @property
    def launch_seconds(self) -> float:
        return 0.0 if self.cpu else LAUNCH_SECONDS

    def moved(self, num_bytes: Size) -> Floats:
        return cast(Floats, num_bytes / (self.bytes_per_second * BANDWIDTH_SHARE) + self.launch_seconds)

    def matmul(self, layout: str, m: Size, n: Size, k: Size, bytes_: float) -> Floats:
        arithmetic = 2.0 * m * n * k / (self.product_rate(bytes_) * self.product_share)
        return np.atleast_1d(np.maximum(arithmetic, self.moved(bytes_ * (m * n + n * k + m * k))))

    def pointwise(self, kernel: str, elements: Size, bytes_: float, width: Size = 0.0) -> Floats:
        if kernel == "cast":
            return self.moved(6.0 * elements)
        return self.moved(PASSES.get(kernel, 2.0) * bytes_ * elements)

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
        products = 5.0 if backward else 2.0
        if not fused:
            scores = batch * heads * seq * seq
            arithmetic = (
                2.0 * scores * head_dim * (products - backward) / (self.float32_flops_per_second * MATMUL_SHARE)
            )
            return cast(Floats, arithmetic + self.moved(scores * SCORE_BYTES))
        near = min(ATTENTION_SHARE, key=lambda d: abs(d - head_dim))
        best = min(ATTENTION_SHARE[near], FLASH_2_SHARE if by_document and self.recent and not flash_4 else 1.0)
        share = CPU_ATTENTION_SHARE if self.cpu else best * (BACKWARD_SHARE if backward else 1.0)
        flops = 2.0 * products * batch * heads * seq * seq * head_dim * (1.0 if masked else 0.5)
        return cast(Floats, flops / (self.flops_per_second * share) + self.launch_seconds)

    def grouped(self, rows: Size, experts: float, inner: Size, outer: Size, role: str, bytes_: float) -> Floats:
        moved = self.moved(bytes_ * (experts * inner * outer + rows * (inner + outer)))
        return np.maximum(self.matmul("nt", rows, outer, inner, bytes_), moved)

    def liger(self, kernel: str, rows: Size, width: Size, bytes_: float, *, passes: float, backward: bool) -> Floats:
        return self.moved(passes * bytes_ * np.atleast_1d(rows * width))

    def dequantize(self, elements: Size, *, nested: bool) -> Floats:
        return self.moved(elements * (0.5 + 2.0))

    def embedding(self, tokens: Size, width: float, vocabulary: float, bytes_: float, *, backward: bool) -> Floats:
        table = vocabulary * width * bytes_ if backward else 0.0
        return self.moved(2.0 * tokens * width * bytes_ + table)

    def fused_loss(self, tokens: Size, hidden: float, vocabulary: float, *, trained: bool) -> Floats | None:
        return None

    def optimizer(self, name: str, elements: Size, tensors: float, bytes_: float) -> Floats:
        """``name``: as TrainingArguments.optim, or ``grad_norm`` for clipping."""
        if name == "grad_norm":  # read for the norm, read and written for the scaling
            return self.moved(3.0 * bytes_ * elements)
        each = {"adamw_bnb_8bit": BLOCKWISE_BYTES, "adafactor": ADAFACTOR_BYTES}.get(
            name, STATE_PASSES.get(name, 7.0) * bytes_
        )
        return self.moved(each * elements)
