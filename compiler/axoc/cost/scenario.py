"""Scenario: what is the same for every candidate of one search pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np

from axoc.cost.columns import Columns, Floats
from axoc.cost.objectives import IMITATION, Objective
from axoc.facts.varlen import FLASH_4
from axoc.ir.facts import ClusterFacts, ModelFacts, RowLengths
from axoc.ir.request import AdapterRequest

DTYPE_BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}

OPTIMIZER_STATE_BYTES: Final[dict[str, Callable[[float], float]]] = {
    # bytes a parameter beyond the weight, given the weight's own bytes w; torch keeps AdamW's states in the
    # parameter's dtype (torch/optim/adamw.py), bitsandbytes keeps two int8 states and blockwise scales
    "adamw_torch": lambda w: 2.0 * w,
    "adamw_torch_fused": lambda w: 2.0 * w,
    "adamw_bnb_8bit": lambda w: 2.0 + 2 * 4 / 256,
    "adafactor": lambda w: 0.0,
    "sgd": lambda w: 0.0,
    "muon": lambda w: 1.0 * w,
}


BY_DOCUMENT: Final = ("varlen", "flash_attention_2", "flash_attention_3", FLASH_4)
"""Attention backends whose kernels are told where documents begin and end."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Element counts of a model, grouped as the cost model needs them."""

    total: int
    embedding: int
    """Token embedding and learned positions."""
    lm_head: int
    """The output projection as it is stored: 0 where tied."""
    vocabulary_matrix: int
    """hidden x vocabulary, tied or not: the matrix the logits are made with."""
    block: int
    """Parameters of one decoder block (the largest kind)."""
    blocks: int
    """Parameters of all decoder blocks."""
    blocks_linear: int
    """Weights of all matrix products inside the blocks, experts included."""
    blocks_quantizable: int
    """Of those, the ones bitsandbytes replaces: nn.Linear, so no fused experts."""
    active_linear: int
    """Linear parameters of all blocks that one token passes (MoE: only its experts)."""
    lora_input_width: int
    """Sum of in_features over the targeted linear layers of one block."""
    lora_output_width: int
    """Sum of out_features over the same."""
    lora_targets: int
    """Targeted linear layers of one block."""
    fused_qkv: bool = False
    """One product gives query, key and value: what is saved of one of them keeps all three."""
    fused_gate_up: bool = False
    """One product gives gate and up."""
    experts: int = 0
    """Weights of all routed experts."""
    pinned_ratio: float = 1.0
    """Bytes of a power of two for each parameter, over the parameters' own: what pinning one by one takes."""
    saved: int = 0
    """Of the vocabulary's matrices, what is trained whole beside an adapter."""
    saved_embedding: bool = False
    saved_head: bool = False
    sight: int = 0
    """Of the total, what sees: it is frozen."""

    @property
    def language(self) -> int:
        """Parameters of the decoder."""
        return self.total - self.sight


@dataclass(frozen=True, kw_only=True)
class Scenario:
    model: ModelFacts
    sizes: Sizes
    cluster: ClusterFacts
    seq_length: int
    dtype: str
    mixed_precision: str
    adapter: AdapterRequest | None
    trainable: int
    """Trainable parameters: all of them, or the adapter's."""
    quantization: str
    double_quantization: bool
    optimizer: str
    attention: str
    kernels: str
    compile: bool
    packing: bool
    evaluates: bool
    steps: int | None
    """Optimizer steps of the run, where known."""
    casts_inputs: bool = True
    """Adapters cast their inputs to their own dtype under autocast too, as PEFT does."""
    counts_operations: bool = True
    """The Trainer counts its FLOPs in every micro-step, as transformers' does; the bundle's runtime does not."""
    scales_between: bool = False
    """An adapter's factor is taken between its matrices, not of what they give."""
    rounds_stochastically: bool = False
    """Updates of bf16 weights, tensor by tensor in a kernel of their own (runtime/axoc_runtime/optimizers)."""
    min_unit_parameters: int | None = 1
    """Of a unit of blocks under FSDP; None: as the latency of collectives asks for (units.py)."""
    streaming: bool = False
    data_rows: int | None = None
    """Of all datasets together, where the lock knows them."""
    data_bytes: int | None = None
    saves: int | None = None
    """Checkpoints the run writes at least, where its length is known."""
    save_steps: int | None = None
    """Between checkpoints, as set; None: left open."""
    saves_by_failures: bool = False
    """Left open, they may come more often where failures ask for it."""
    held_out_rows: int | None = None
    """Rows that are evaluated on, where the lock knows them."""
    sampled_rows: int | None = None
    """Of the held-out rows those that evaluations during training look at; None for all."""
    evaluations: int = 0
    """Passes over them in the run."""
    downloads: bool = False
    """The base model comes from a hub: its files are stored on this machine too."""
    exports: tuple[tuple[str, float], ...] = ()
    """Formats that are written after training, and their bytes a parameter."""
    uploads: bool = False
    """Checkpoints are sent to a store as well."""
    objective: Objective = IMITATION
    lengths: RowLengths | None = None
    """Of the data's rows; None: not known, and rows are taken full."""
    variants: tuple[Scenario, ...] = ()
    """Ways to run the same model that candidates choose among (attention, kernels, compile, packing), each a scenario of
    its own; none: this one alone. A change of all of them is made by ``with_all``."""

    def variant(self, index: int) -> Scenario:
        return self.variants[index] if self.variants else self

    def each(self, c: Columns, figure: Callable[[Scenario], float]) -> Floats:
        """A figure of each candidate's variant."""
        return np.array([float(figure(v)) for v in self.variants or (self,)])[c.variant]

    def by_variant(self, c: Columns, figure: Callable[[Scenario, Columns], Floats]) -> Floats:
        """The same where it depends on more of the candidate than its variant."""
        found = np.zeros(len(c))
        for index in range(max(1, len(self.variants))):
            rows = c.variant == index
            found[rows] = figure(self.variant(index), c.rows(rows).of_one_variant())
        return found

    def with_all(self, **changed: object) -> Scenario:
        """With a change that is made in all variants."""
        variants = tuple(replace(v, **changed) for v in self.variants)  # type: ignore[arg-type]
        return replace(self, variants=variants, **changed)  # type: ignore[arg-type]

    @property
    def is_full(self) -> bool:
        return self.adapter is None

    @property
    def trains_embedding(self) -> bool:
        return self.is_full or self.sizes.saved_embedding

    @property
    def trains_head(self) -> bool:
        return self.is_full or self.sizes.saved_head

    @property
    def quantized(self) -> bool:
        return self.quantization in ("nf4", "fp4", "int8")

    @property
    def weight_bytes(self) -> int:
        return DTYPE_BYTES[self.dtype]

    @property
    def trainable_bytes(self) -> int:
        """Bytes of one trainable weight: adapters are kept in fp32 (PEFT's autocast_adapter_dtype)."""
        return self.weight_bytes if self.is_full else 4

    @property
    def compute_bytes(self) -> int:
        """Bytes of one activation inside linear layers and attention."""
        return 2 if self.mixed_precision in ("bf16", "fp16", "fp8") else self.weight_bytes

    @property
    def fused_loss(self) -> bool:
        """Liger's fused linear cross-entropy, and the chunked one, never hold the whole logits."""
        return self.kernels in ("liger", "chunked") and self.objective.loss == "cross_entropy"

    @property
    def fused_blocks(self) -> bool:
        """Norms, positions and gated activations are one kernel each, by Liger or by compilation."""
        return self.kernels == "liger" or self.compile

    @cached_property
    def trained_lengths(self) -> RowLengths:
        """As rows are trained: none is longer than the limit."""
        assert self.lengths is not None
        limit = float(self.seq_length)
        both = zip(self.lengths.tokens, self.lengths.shares, strict=True)
        below = [(n, share) for n, share in both if n < limit]
        rest = 1.0 - sum(share for _, share in below)
        kept = below + ([(limit, rest)] if rest > 1e-9 else [])
        tokens, shares = tuple(n for n, _ in kept), tuple(s for _, s in kept)
        return RowLengths(tokens=tokens, shares=shares, source=self.lengths.source)

    @property
    def program_of_blocks(self) -> tuple[object, ...]:
        """Variants that are alike in it run the same blocks: they differ in the loss alone."""
        return (self.attention, self.packing, self.compile, self.compile or self.kernels == "liger")

    @property
    def by_document(self) -> bool:
        """Attention is told where documents begin and end, and needs no mask for it."""
        return self.attention in BY_DOCUMENT

    @property
    def whole_logits(self) -> bool:
        """Logits of all tokens of a micro-batch are there at once."""
        return not self.fused_loss and self.objective.loss in ("cross_entropy", "whole_logits")

    @property
    def on_cpu(self) -> bool:
        return self.cluster.accelerator.vendor == "cpu"

    @property
    def file_bytes(self) -> int:
        """Bytes of one weight in the base model's files; 2 where its config does not say: most are published so."""
        return DTYPE_BYTES.get(self.model.file_dtype or "", 2)

    @property
    def optimizer_bytes_of_masters(self) -> float:
        """Bytes a parameter of the states of an optimizer that is given fp32 masters."""
        return OPTIMIZER_STATE_BYTES[self.optimizer](4.0)

    @property
    def optimizer_bytes(self) -> float:
        return OPTIMIZER_STATE_BYTES[self.optimizer](self.trainable_bytes)
