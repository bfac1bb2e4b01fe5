"""Operations that blocks are made of, as torch, PEFT, bitsandbytes and Liger run them: casts, linear layers, norms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Final

import numpy as np

from axoc.cost import float8
from axoc.cost.columns import Floats
from axoc.cost.scenario import Scenario
from axoc.cost.tape import Flow, Parameter, Size, Storage, Tape, Value
from axoc.facts.parameters import linear_shapes
from axoc.ir.facts import ModelFacts

FP32: Final = 4.0
DROPOUT: Final = ("gpt2",)
"""Families whose published configs train with dropout: on the scores, and on what attention and MLP add to the stream."""
NESTED_SCALE_BYTES: Final = 4.0 / 64
"""fp32 scales of four-bit weights, made anew for each product where they are quantized themselves (a byte in 64)."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is the same for all operations of a block: dtypes, what is trained, who takes the gradients."""

    scenario: Scenario
    stream: float
    """Bytes of an element of the residual stream: the embedding's dtype."""
    compute: float
    """Inside linear layers and attention."""
    weight: float
    """Of a weight that is no matrix product's, such as a norm's."""
    autocast: bool
    targets: frozenset[str]
    """Paths in a block of the linear layers with an adapter."""
    expert_targets: frozenset[str]
    """Names of the experts' fused parameters with one."""
    tensor_parallel: Floats
    gradient_bytes: Floats
    """Of one trained weight once its gradient stays; 0 where it is added to one that is there."""
    adapter: float = FP32
    """Of an adapter's weight: DeepSpeed turns it into the module's dtype."""
    compiled_blocks_only: bool = False
    """Of what stands outside the blocks of a model whose blocks are compiled."""
    padded: bool = False
    """Rows of different lengths stand side by side, under a mask."""
    folded: bool = True
    """Linear layers are torch's: see Node. ZeRO-3's multiply as they are given (deepspeed runtime/zero/linear.py)."""
    attended: Floats | None = None
    """Tokens of the rows that attention is computed over, one figure a shape; None: the longest rows there may be."""

    @property
    def outside(self) -> Setting:
        """Of what is no block's: only blocks are compiled, and of Liger's kernels the loss alone stands beside them."""
        return replace(self, compiled_blocks_only=True) if self.scenario.compile else self

    @property
    def compiled(self) -> bool:
        return self.scenario.compile and not self.compiled_blocks_only

    @property
    def row_tokens(self) -> Size:
        return float(self.scenario.seq_length) if self.attended is None else self.attended

    @property
    def trained(self) -> bool:
        return self.scenario.is_full

    @property
    def leaves_inputs(self) -> bool:
        """Adapters do not cast what autocast casts anyway: all that have one input keep that one."""
        return self.autocast and not self.scenario.casts_inputs

    @property
    def four_bit(self) -> bool:
        return self.scenario.quantization in ("nf4", "fp4")

    @property
    def float8(self) -> bool:
        """Of the blocks' linear layers, an adapter's own left out."""
        return self.scenario.mixed_precision == "fp8" and not self.compiled_blocks_only

    @property
    def liger(self) -> bool:
        """Norms, positions and gated activations are one kernel each: Liger's, or what the compiler makes of them."""
        return self.scenario.fused_blocks and not self.compiled_blocks_only

    @property
    def overwrites(self) -> bool:
        """Liger writes gradients over what it saved; compiled code does not."""
        return not self.compiled

    @property
    def linear_input(self) -> float:
        """Bytes of an element as a linear layer computes with it."""
        return self.compute if self.autocast else self.stream

    def parameter(self, elements: Size, computed: float, stored: float, *, biased: bool = False) -> Parameter:
        """``computed`` and ``stored``: bytes of the gradient where it is made, and of the weight."""
        kept = elements * self.gradient_bytes
        return Parameter(elements * computed, kept, computed != stored, biased)


def cast(t: Tape, value: Value, bytes_: float) -> Value:
    """``to``: the tensor itself where it has that dtype."""
    if value.bytes == bytes_:
        return t.again(value)
    return t.apply(value.width, bytes_, [value], kind="cast")


def lowered(t: Tape, s: Setting, value: Value) -> Value:
    """As autocast hands it to a matrix product."""
    return cast(t, value, s.compute) if s.autocast and value.bytes > s.compute else t.again(value)


def scaled(t: Tape, value: Value) -> Value:
    """Times a number."""
    return t.apply(value.width, value.bytes, [value], kind="scale")


def add(t: Tape, one: Value, other: Value) -> Value:
    bytes_ = max(one.bytes, other.bytes)
    flows = tuple("same" if v.bytes == bytes_ else "new" for v in (one, other))
    return t.apply(one.width, bytes_, [one, other], flows=flows, kind="add")  # type: ignore[arg-type]


def linear(t: Tape, s: Setting, value: Value, path: str, inner: Size, outer: Size) -> Value:
    """A linear layer of the blocks, ``inner`` to ``outer`` features, with the adapter it may have."""
    if path in s.targets:
        return adapted(t, s, value, inner, outer)
    if s.four_bit and s.scenario.sizes.blocks_quantizable:
        return four_bit(t, s, value, inner, outer)
    return plain(t, s, value, inner, outer, biased=path in biased_paths(s.scenario.model))


@lru_cache(maxsize=64)
def biased_paths(model: ModelFacts) -> frozenset[str]:
    return frozenset(shape.path for shape in linear_shapes(model) if shape.bias)


def plain(t: Tape, s: Setting, value: Value, inner: Size, outer: Size, *, biased: bool = False) -> Value:
    """nn.Linear. autocast copies a weight that is not in its dtype: once a forward where it is trained, else each time
    (ATen/autocast_mode.cpp, cached_cast), and either is saved for the gradient of the input."""
    low = lowered(t, s, value)
    if s.float8:
        made = float8.product(t, s, low, inner, outer, biased=biased)
        t.drop(low)
        return made
    weights = inner * outer
    leaf = s.scenario.model.family != "falcon"  # FalconLinear multiplies by a transposed view
    copy = weight_copy(t, s, weights, s.weight, cached=s.trained and leaf)
    kept = s.trained or not s.folded  # ZeRO-3's own saves its input whether or not the weight is trained
    saves = ([low.storage] if kept else []) + [copy if copy is not None else t.weight()]
    parameters = [s.parameter(weights, low.bytes, s.weight, biased=biased)] if s.trained else []
    sizes = (inner, outer)
    result = t.apply(
        outer, low.bytes, [low], saves=saves, parameters=parameters, folded=s.folded, kind="linear", sizes=sizes
    )
    if copy is not None:
        t.release(copy)
    t.drop(low)
    return result


def weight_copy(t: Tape, s: Setting, elements: Size, stored: float, *, cached: bool) -> Storage | None:
    """Autocast's copy of a weight of ``stored`` bytes an element. ``cached``: it is a leaf that is trained, so that the
    copy stays until the whole forward ends; where nothing else is kept, it is counted apart, for all blocks."""
    if not s.autocast or stored <= s.compute:
        return None
    t.did("weight_cast", elements)
    size = elements * s.compute
    if cached and not t.records:
        t.cached = t.cached + size
        return None
    if t.records:
        t.copies = t.copies + size
    return t.allocate(size)


def four_bit(t: Tape, s: Setting, value: Value, inner: Size, outer: Size) -> Value:
    """Linear4bit casts its input and its result; the weight is dequantized in the forward and again in the backward
    (bitsandbytes autograd/_functions.py MatMul4Bit, nn/modules.py Linear4bit.forward)."""
    low = cast(t, value, s.compute)
    scales = NESTED_SCALE_BYTES if s.scenario.double_quantization else 0.0
    weight = inner * outer * s.compute
    dequantized = [t.allocate(2 * inner * outer * scales), t.allocate(weight)]
    product = t.apply(outer, s.compute, [low], scratch=weight, kind="linear_4bit", sizes=(inner, outer))
    for storage in dequantized:
        t.release(storage)
    result = cast(t, product, value.bytes)
    t.drop(low, product)
    return result


def adapted(t: Tape, s: Setting, value: Value, inner: Size, outer: Size) -> Value:
    """A low-rank pair beside a frozen layer (peft/tuners/lora/layer.py and bnb.py, forward)."""
    adapter = s.scenario.adapter
    assert adapter is not None
    quantized = s.four_bit and bool(s.scenario.sizes.blocks_quantizable)
    t.did("adapter")
    base = four_bit(t, s, value, inner, outer) if quantized else plain(t, s, value, inner, outer)
    if quantized:  # result.clone()
        cloned = t.apply(outer, base.bytes, [base], flows=("same",), kind="copy")
        t.drop(base)
        base = cloned
    raised = t.again(value) if s.leaves_inputs or (quantized and s.autocast) else cast(t, value, s.adapter)
    dropped = dropout(t, raised) if adapter.dropout > 0 else t.again(raised)
    between = s.scenario.scales_between and not quantized
    low = pair(t, s, dropped, inner, adapter.rank)
    small = scaled(t, low) if between else t.again(low)
    t.drop(low)
    added = pair(t, s, small, adapter.rank, outer)
    t.drop(small)
    plainly = t.again if between else partial(scaled, t)
    times = magnitudes(t, s, base, added, dropped, inner, outer) if adapter.use_dora else plainly(added)
    t.drop(added, dropped)
    if quantized and not s.autocast:
        same = cast(t, times, base.bytes)
        t.drop(times)
        times = same
    result = add(t, base, times)
    t.drop(base, times, raised)
    final = cast(t, result, base.bytes)
    t.drop(result)
    return final


def magnitudes(t: Tape, s: Setting, base: Value, added: Value, dropped: Value, inner: Size, outer: Size) -> Value:
    """DoRA: (m - 1) * base + m * added * scaling, with m in fp32; a base of its own where the input is dropped out
    (peft/tuners/lora/dora.py, DoraLinearLayer.forward). While it runs, the norm of the merged weight is taken from the
    identity passed through the pair, and from the weight in fp32: its sum with the product, and both factors."""
    adapter = s.scenario.adapter
    assert adapter is not None
    t.scratch(np.maximum(inner * inner * (FP32 + s.compute), inner * outer * (4 * FP32 + s.compute)))
    own = _dropped_base(t, s, dropped, inner, outer) if adapter.dropout > 0 else t.again(base)
    whole = outer * FP32 * t.tokens
    first = t.apply(outer, FP32, [own], saves=[own.storage], scratch=whole)
    second = t.apply(outer, FP32, [added], saves=[added.storage], scratch=whole)
    third = scaled(t, second)
    t.drop(own, second)
    total = add(t, first, third)
    t.drop(first, third)
    return total


def _dropped_base(t: Tape, s: Setting, dropped: Value, inner: Size, outer: Size) -> Value:
    """The frozen layer on the input with dropout. Without autocast its weight is copied into the input's dtype, and the copy saved
    (dora.py: weight.to(x.dtype))."""
    if s.autocast or dropped.bytes <= s.weight:
        return plain(t, s, dropped, inner, outer)
    copy = t.allocate(inner * outer * dropped.bytes)
    result = t.apply(
        outer, dropped.bytes, [dropped], saves=[copy], folded=s.folded, kind="linear", sizes=(inner, outer)
    )
    t.release(copy)
    return result


def pair(t: Tape, s: Setting, value: Value, inner: Size, outer: Size) -> Value:
    """One matrix of the adapter."""
    low = lowered(t, s, value)
    copy = weight_copy(t, s, inner * outer, s.adapter, cached=True)
    parameter = s.parameter(inner * outer, low.bytes, s.adapter)
    saves = [low.storage, copy if copy is not None else t.weight()]
    sizes = (inner, outer)
    result = t.apply(
        outer, low.bytes, [low], saves=saves, parameters=[parameter], folded=s.folded, kind="linear", sizes=sizes
    )
    if copy is not None:
        t.release(copy)
    t.drop(low)
    return result


def dropout(t: Tape, value: Value) -> Value:
    """A mask of one byte (ATen/native/cuda/Dropout.cu, native_dropout)."""
    mask = t.allocate(value.width * t.tokens)
    result = t.apply(value.width, value.bytes, [value], saves=[mask], kind="dropout")
    t.release(mask)
    return result


def norm(t: Tape, s: Setting, value: Value) -> Value:
    """Of the last dimension, whatever the family's kind."""
    if s.scenario.model.norm.startswith("layernorm"):
        return layer_norm(t, s, value)
    if s.liger:
        return liger_norm(t, s, value)
    return rms_norm(t, s, value)


def layer_norm(t: Tape, s: Setting, value: Value) -> Value:
    """One kernel, in fp32 under autocast (torch.amp's list of such operations); keeps its input."""
    raised = cast(t, value, FP32) if s.autocast else t.again(value)
    result = t.apply(value.width, raised.bytes, [raised], saves=[raised.storage], kind="layer_norm")
    t.drop(raised)
    return result


def liger_norm(t: Tape, s: Setting, value: Value) -> Value:
    """Keeps its input as it came; the gradient is written over its own (liger_kernel ops/rms_norm.py), but for Gemma and
    OLMo 2, whose are new (transformers/rms_norm.py, in_place)."""
    in_place = s.overwrites and s.scenario.model.family not in ("gemma2", "gemma3", "olmo2")
    flow: Flow = "same" if in_place else "new"
    return t.apply(value.width, value.bytes, [value], saves=[value.storage], flows=(flow,), kind="liger_norm")


def rms_norm(t: Tape, s: Setting, value: Value) -> Value:
    """In fp32, from single operations (e.g. LlamaRMSNorm): the input is kept by pow and by the product with 1/rms."""
    raised = cast(t, value, FP32)
    full = value.width * FP32 * t.tokens
    square = t.apply(
        value.width, FP32, [raised], saves=[raised.storage], scratch=2 * full, kind="pow"
    )  # grad * (2 * x ** 1)
    inverse = t.apply(1.0 * 0, FP32, [square], kind="mean")
    t.drop(square)
    normal = t.apply(value.width, FP32, [raised, inverse], saves=[raised.storage], scratch=full, kind="mul_column")
    t.drop(raised, inverse)
    return _weighted(t, s, value, normal)


def _weighted(t: Tape, s: Setting, value: Value, normal: Value) -> Value:
    """Times the weight: after the cast back in Llama, before it in Gemma and OLMo 2."""
    family = s.scenario.model.family
    if family in ("gemma2", "gemma3"):
        t.did("one_plus", s.weight)
    before = family in ("gemma2", "gemma3", "olmo2")
    factor = t.again(normal) if before else cast(t, normal, value.bytes)
    bytes_ = max(factor.bytes, FP32 if before else s.weight)
    saves = [factor.storage if s.trained else t.weight()]
    scratch = value.width * bytes_ * t.tokens if s.trained else 0.0
    result = t.apply(value.width, bytes_, [factor], saves=saves, scratch=scratch, kind="mul_row", sizes=(s.trained,))
    t.drop(factor)
    held = [normal] if family == "olmo2" else []  # the function's name for it
    if not held:
        t.drop(normal)
    if not before:
        return result
    final = cast(t, result, value.bytes)
    t.drop(result, *held)
    return final
