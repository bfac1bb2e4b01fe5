"""Facts: what is known about models, data and hardware. Figures come from catalogs, each with its source."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class MoeFacts:
    num_experts: int
    experts_per_token: int
    expert_intermediate_size: int
    num_shared_experts: int = 0
    shared_intermediate_size: int = 0
    """Width of all shared experts together; 0 where there are none."""
    num_dense_layers: int = 0
    """Layers with a dense MLP instead of experts (the first ones in DeepSeek)."""


@dataclass(frozen=True, kw_only=True)
class MlaFacts:
    """Multi-head latent attention (DeepSeek V2 and V3)."""

    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int


@dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """Weights that are quantized in the model's own files."""

    by: str
    """What reads them: ``bitsandbytes``, ``compressed-tensors``, ``gptq``, ``awq``, …"""
    method: str | None
    """As model.quantization names it, where training keeps them so: nf4 | fp4 | int8."""
    double_quantization: bool = False


@dataclass(frozen=True, kw_only=True)
class VisionFacts:
    """The part of a model that sees: a tower of layers over patches, and what carries its output into the decoder."""

    parameters: int
    """Of both, all frozen."""
    hidden_size: int
    intermediate_size: int
    num_layers: int
    patch_elements: int
    """Of the pixels that a patch is made from."""
    tokens_per_tile: int
    """That the decoder reads of the smallest image, or of each part of a larger one."""
    patches_per_tile: int
    """That the tower reads for them."""
    inner_copies: int
    """Of the MLP's inner values, that are there at once while they are activated."""
    keeps_layers: bool
    """The output of every layer is held until the last one's is there."""
    blocks: str
    """Path of the decoder's blocks in transformers' class."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The shape of a decoder-only transformer, from its config.json. All sizes are counts, not bytes."""

    id: str
    family: str
    """axoc's family name, e.g. ``llama``; ``generic`` where only the common fields are known."""
    model_type: str
    """transformers' ``model_type``."""
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    gated_mlp: bool
    """True: gate, up and down projections (SwiGLU, GeGLU); False: up and down only."""
    activation: str
    norm: str
    """``rmsnorm`` | ``layernorm`` | ``layernorm_nobias``"""
    norms_per_layer: int
    final_norm: bool
    qk_norm: str
    """``none`` | ``head`` (a head_dim vector each, Qwen3) | ``full`` (whole projection, OLMo 2)"""
    attention_bias: bool
    """Bias on the q, k and v projections."""
    attention_output_bias: bool
    mlp_bias: bool
    learned_positions: bool
    lm_head_bias: bool
    decoder_block: str
    """Class name of the repeated block in transformers, e.g. ``LlamaDecoderLayer``: FSDP's unit."""
    sliding_window: int | None = None
    sliding_window_layers: int = 0
    logit_softcapping: float | None = None
    attention_softcapping: float | None = None
    moe: MoeFacts | None = None
    mla: MlaFacts | None = None
    file_dtype: str | None = None
    """Of the published weights, as config.json says; None where it does not."""
    vision: VisionFacts | None = None
    """Of a model that sees, where the rows have images; all other fields are its decoder's."""
    stored: StoredWeights | None = None
    """None: the published weights are exact."""
    license: str = "unknown"
    source: str = ""

    @property
    def attention_kind(self) -> str:
        """``MHA``, ``GQA``, ``MQA`` or ``MLA``."""
        if self.mla is not None:
            return "MLA"
        if self.num_kv_heads == self.num_heads:
            return "MHA"
        return "MQA" if self.num_kv_heads == 1 else "GQA"


@dataclass(frozen=True, kw_only=True)
class AcceleratorFacts:
    name: str
    """Catalog name, e.g. ``h100-sxm-80gb``; also ``cpu``."""
    vendor: str
    """``nvidia`` | ``amd`` | ``cpu``"""
    architecture: str
    """e.g. ``hopper``"""
    compute_capability: tuple[int, int]
    """(9, 0) for H100; (0, 0) where it has no meaning."""
    memory_bytes: int
    """Usable bytes as the driver reports the total, not the label."""
    memory_bandwidth_bytes_per_second: float
    dense_flops_per_second: dict[str, float]
    """Dense (not sparse) datasheet rates by dtype: float32, tf32, bfloat16, float16, fp8."""
    link_bandwidth_bytes_per_second: float
    """Between accelerators of one node, one direction, per accelerator."""
    link_kind: str
    """``nvlink`` | ``pcie`` | ``infinity-fabric`` | ``shared-memory``"""
    context_bytes: int
    """Device memory the driver context takes, before any tensor."""
    sources: dict[str, str] = field(default_factory=dict)
    """Where each figure comes from, by field name, with a date."""


@dataclass(frozen=True, kw_only=True)
class ClusterFacts:
    """One kind of node, repeated. Several kinds to choose from are several ClusterFacts."""

    accelerator: AcceleratorFacts
    accelerators_per_node: int
    nodes: int
    host_memory_bytes: int
    disk_bytes: int | None
    network_bandwidth_bytes_per_second: float
    """Between nodes, one direction, per node."""
    network_kind: str
    """Of facts/links.py."""
    price_usd_per_accelerator_hour: float | None
    price_source: str
    cpu_cores_per_node: int
    spot_price_usd_per_accelerator_hour: float | None = None
    """Where capacity may be taken away."""
    spot_price_source: str = "no spot price known"
    network_efficiency: float | None = None
    """Share of the rate that collectives reach, as the inventory says; None: as the kind's usually do."""
    network_latency_seconds: float | None = None
    """Of a hop beyond its protocol's, likewise."""
    link_direct: bool = False
    """Inside a node each pair of accelerators has a link of its own, and no switch is between."""
    failures_per_node_day: float | None = None
    """As the inventory says; None: as published of large clusters (facts/failures.py)."""
    spot_failures_per_node_day: float | None = None
    """The same where capacity may be taken away, failures included."""
    storage_bytes_per_second: float | None = None
    """Of one node, writing a checkpoint; None: the cost model's assumption."""
    mixed: tuple[tuple[str, int], ...] = ()
    """Where nodes are unlike: the kinds' names with their nodes. All other fields are then of the slowest."""
    host_memory_given: bool = False
    """True: the inventory says it; False: it is what such nodes usually have."""
    calibration: str | None = field(default=None, repr=False)
    """The text of a profile that the inventory names; None: the one that ships, if any."""

    @property
    def world_size(self) -> int:
        return self.accelerators_per_node * self.nodes

    @property
    def label(self) -> str:
        """The inventory's short form, e.g. ``h100-sxm-80gb:8x4``."""
        if self.mixed:
            return "+".join(_label(name, self.accelerators_per_node, nodes) for name, nodes in self.mixed)
        return _label(self.accelerator.name, self.accelerators_per_node, self.nodes)


def _label(name: str, per_node: int, nodes: int) -> str:
    return f"{name}:{per_node}{f'x{nodes}' if nodes > 1 else ''}"


@dataclass(frozen=True, kw_only=True)
class RowLengths:
    """How long rows are, in tokens, before they are cut to the longest that is trained."""

    tokens: tuple[float, ...]
    """Lengths in ascending order, each standing for the rows about as long."""
    shares: tuple[float, ...]
    """Of all rows, in the same order; they sum to 1."""
    source: str
    """What says so, in words."""
    counted: tuple[tuple[int, int], ...] = ()
    """(tokens up to, rows), where they were counted."""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What spec.lock knows of one dataset. None: not known at plan time."""

    path: str | None
    rows: int | None = None
    bytes: int | None = None
    sha256: str | None = None
    lengths: RowLengths | None = None
