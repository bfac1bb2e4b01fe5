"""PlanRequest: what the user asked for, checked and lowered from the spec, before anything is chosen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

Auto = Literal["auto"]
AUTO: Final[Auto] = "auto"

Strategy = Literal["single", "ddp", "fsdp", "zero1", "zero2", "zero3"]
Offload = Literal["none", "optimizer", "optimizer+parameters"]
Checkpointing = Literal["none", "full", "selective"]


@dataclass(frozen=True, kw_only=True)
class QuantizationRequest:
    """How the frozen base weights are stored, e.g. ``{method: nf4, double_quantization: true}``."""

    method: str
    double_quantization: bool = True
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TokenizerRequest:
    source: str | None = None
    """None: the model's own."""
    type: str = "auto"
    chat_template: str | None = None
    """Jinja, or, as it comes from the spec, the path of a file with it."""
    added_tokens: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    id: str | None
    revision: str | None
    config: str | None
    """Path of a config.json as the user wrote it; None when the catalog or ``id`` must tell."""
    type: str
    dtype: str
    attention: str
    kernels: str
    compile: bool | Auto
    quantization: QuantizationRequest | Auto | None
    trust_remote_code: bool
    tokenizer: TokenizerRequest = field(default_factory=TokenizerRequest)
    vision: bool = False
    """Rows are about images, by their format's name or the first of them."""

    @property
    def looks_remote(self) -> bool:
        """A hub's id has one slash and does not look like a path."""
        return self.id is not None and self.id.count("/") == 1 and not self.id.startswith((".", "/", "~", "models/"))


@dataclass(frozen=True, kw_only=True)
class AdapterRequest:
    type: str
    rank: int
    alpha: float
    dropout: float
    targets: str | tuple[str, ...]
    """``all-linear``, module names, or a regular expression that fits whole module paths."""
    use_rslora: bool = False
    use_dora: bool = False
    modules_to_save: tuple[str, ...] = ()
    init: str = "default"
    """default | gaussian | pissa | loftq"""
    init_iterations: int | None = None
    """Of pissa's randomized decomposition; None: exact."""
    loraplus_lr_ratio: float | None = None
    """Learning rate of the second matrix over the first's; None: one rate for both."""


@dataclass(frozen=True, kw_only=True)
class DatasetRequest:
    path: str | None
    type: str
    weight: float
    validation_split: float
    split_seed: int
    system_prompt: str | None
    support_tool_calls: bool
    max_seq_length: int
    packing: bool | Auto
    streaming: bool
    mean_tokens: float | None = None
    """Of a row, where the user knows."""
    truncation: str = "right"
    train_on: str = "assistant"
    on_bad_row: str = "fail"
    options: dict[str, Any] = field(default_factory=dict)
    """Free-form options handed to the dataset format, as data."""


@dataclass(frozen=True, kw_only=True)
class PreferenceRequest:
    """Of the objectives that learn from preferences."""

    beta: float
    label_smoothing: float = 0.0
    simpo_gamma: float = 1.0
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    reference: str = "none"
    """What the policy is held against: none | adapter (itself with the adapter switched off) | model (a second copy) |
    precomputed (log-probabilities taken before training)."""


@dataclass(frozen=True, kw_only=True)
class RewardRequest:
    name: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class GrpoRequest:
    generations: int
    """Completions of one prompt."""
    max_completion_length: int
    """Tokens."""
    temperature: float
    beta: float
    reference: str
    """none | adapter | model, as in PreferenceRequest."""
    rewards: tuple[RewardRequest, ...]


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    objective: str
    epochs: float | None
    max_steps: int | None
    global_batch_size: int | Auto
    micro_batch_size: int | Auto
    gradient_accumulation_steps: int | Auto
    gradient_checkpointing: Checkpointing | Auto
    checkpoint_above_parameters: int | None
    optimizer: str
    learning_rate: float
    lr_scheduler: str
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    seed: int
    logging_steps: int
    eval_steps: int | Auto
    save_steps: int | Auto
    early_stopping_patience: int | None
    bf16_update: str = "nearest"
    """How updates of bfloat16 weights are rounded: nearest | stochastic."""
    eval_rows: int | None = None
    """Held-out rows of an evaluation during training; None for all."""
    preference: PreferenceRequest | None = None
    """None where the objective does not learn from preferences by log-probabilities."""
    grpo: GrpoRequest | None = None
    """None but for grpo."""


@dataclass(frozen=True, kw_only=True)
class DistributedRequest:
    type: str
    """auto | ddp | fsdp | zero1 | zero2 | zero3"""
    gpu_count: int | None
    model_parallel_size: int | Auto
    replicate_degree: int | Auto
    min_unit_parameters: int | Auto
    mixed_precision: str
    memory_budget_per_gpu_bytes: int | None
    offload: Offload | Auto
    config_path: str | None


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    formats: tuple[str, ...]
    quantization: str


@dataclass(frozen=True, kw_only=True)
class PolicyRequest:
    max_cost_usd: float | None = None
    max_hours: float | None = None
    objective: str = AUTO
    """auto | time | cost | trade-off: the run's dollars and ``usd_per_hour`` for each hour it takes."""
    usd_per_hour: float | None = None
    max_gpus: int | None = None
    memory_safety: float = 0.03
    """Share of the budget kept free on top of the prediction."""
    allowed_images: tuple[str, ...] = ()
    """Shell patterns; empty: any. So are the next two."""
    allowed_registries: tuple[str, ...] = ()
    allowed_licenses: tuple[str, ...] = ()
    no_remote_code: bool = False
    no_telemetry: bool = False
    required_pins: tuple[str, ...] = ()
    """model | data | packages"""


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """Questions asked of the base and of the trained model at the end of the run."""

    prompts: tuple[str, ...] = ()
    max_new_tokens: int = 96


@dataclass(frozen=True, kw_only=True)
class TargetRequest:
    """What launches the run. What a target does not read has its default."""

    type: str = "torchrun"
    """torchrun | slurm | kubernetes | skypilot | ray, or a plugin's"""
    retries: int = 3
    rendezvous: str = "static"
    """static | c10d"""
    time_limit_hours: float | None = None
    cpus_per_process: int | Auto = AUTO
    host_memory_gb: float | Auto = AUTO
    """GiB a node."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    restart: str = "requeue"
    """requeue | array"""
    image: str | None = None
    namespace: str | None = None
    queue: str | None = None
    claim: str | None = None
    accelerator: str | None = None
    infra: str | None = None
    spot: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    """Free-form options of the engine, as data."""


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """A whole spec, lowered. ``explicit`` holds the dotted names the user wrote, e.g. ``training.epochs``."""

    name: str
    model: ModelRequest
    adapter: AdapterRequest | None
    datasets: tuple[DatasetRequest, ...]
    training: TrainingRequest
    eval_metrics: tuple[str, ...]
    distributed: DistributedRequest
    export: ExportRequest
    tracking: tuple[str, ...]
    output_dir: str
    upload_to: str | None = None
    """URL of a place on a store where checkpoints and results are sent as well."""
    logging_level: str
    target: TargetRequest
    policy: PolicyRequest
    samples: SampleRequest
    inventory: str | None = None
    """The inventory to plan for where the command line names none."""
    plugins: tuple[str, ...]
    """Folders of Python packages with entry points, copied into the bundle."""
    explicit: frozenset[str]

    @property
    def max_seq_length(self) -> int:
        """Tokens in the longest row of any dataset."""
        return max(d.max_seq_length for d in self.datasets)
