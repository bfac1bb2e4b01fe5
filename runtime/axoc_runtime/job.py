"""job.json, read strictly: docs/job.md describes it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.schema import read

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, kw_only=True)
class Quantization:
    method: str
    double_quantization: bool
    options: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    source: str | None
    """A folder or hub id; None: the model's own."""
    type: str | None
    """The name of a plugin; None: one that is for the family, if any."""
    chat_template: str | None
    """Jinja; None: the tokenizer's own."""
    added_tokens: tuple[str, ...]
    embedding_rows: int | None
    """Of the model with them; None where there are none."""


@dataclass(frozen=True, kw_only=True)
class Model:
    id: str | None
    revision: str | None
    family: str
    decoder_block: str
    dtype: str
    attention: str
    kernels: str
    compile: bool
    quantization: Quantization | None
    tokenizer: Tokenizer
    vision: bool = False
    """Rows are about images: the model is loaded with the part that sees, which stays as it is."""
    trust_remote_code: bool
    licence: str | None
    """Of the base model, as the compiler's catalog knows it."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    type: str
    rank: int
    alpha: float
    dropout: float
    targets: str | tuple[str, ...]
    use_rslora: bool
    use_dora: bool
    modules_to_save: tuple[str, ...]
    init: str
    """default | gaussian | pissa | loftq"""
    init_iterations: int | None
    """Of pissa's randomized decomposition; None: exact."""
    loraplus_lr_ratio: float | None
    casts_inputs: bool = True
    """False: under autocast inputs are not cast to the adapter's dtype first (models/adapter_inputs.py)."""
    scales_between: bool = False
    """The factor is taken between both matrices, not of what they give (models/adapter_scale.py)."""


@dataclass(frozen=True, kw_only=True)
class DatasetJob:
    path: str | None
    type: str
    weight: float
    validation_split: float
    split_seed: int
    system_prompt: str | None
    support_tool_calls: bool
    max_seq_length: int
    packing: bool
    streaming: bool
    truncation: str
    """What becomes of a row that is too long: right | left | split | drop."""
    train_on: str
    """Whose tokens are trained on: assistant | last_turn | all."""
    on_bad_row: str
    """What becomes of a row that cannot be used: fail | drop | quarantine."""
    options: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Preference:
    beta: float
    label_smoothing: float
    simpo_gamma: float
    desirable_weight: float
    undesirable_weight: float
    reference: str


@dataclass(frozen=True, kw_only=True)
class Reward:
    name: str
    weight: float


@dataclass(frozen=True, kw_only=True)
class Grpo:
    generations: int
    max_completion_length: int
    temperature: float
    beta: float
    reference: str
    rewards: tuple[Reward, ...]


@dataclass(frozen=True, kw_only=True)
class Training:
    objective: str
    epochs: float | None
    max_steps: int | None
    global_batch_size: int
    micro_batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: str
    checkpointed_layers: int
    checkpoint_above_parameters: int | None
    optimizer: str
    bf16_update: str
    learning_rate: float
    lr_scheduler: str
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    seed: int
    logging_steps: int
    eval_steps: int | None
    eval_rows: int | None
    """Held-out rows of an evaluation during training, always the same; None for all."""
    save_steps: int | None
    early_stopping_patience: int | None
    preference: Preference | None
    grpo: Grpo | None


@dataclass(frozen=True, kw_only=True)
class Samples:
    prompts: tuple[str, ...]
    max_new_tokens: int


@dataclass(frozen=True, kw_only=True)
class Distributed:
    strategy: str
    device: str
    world_size: int
    nodes: int
    processes_per_node: int
    data_parallel: int
    tensor_parallel: int
    replicate_degree: int
    """Copies of the model, each sharded over the other data-parallel ranks; 1 where one copy is, or none."""
    mixed_precision: str
    offload: str
    config: str | None

    @property
    def autocast(self) -> str:
        """no | bf16 | fp16: what everything that is not computed in float8 is computed in."""
        return "bf16" if self.mixed_precision == "fp8" else self.mixed_precision

    @property
    def shard_degree(self) -> int:
        """Data-parallel ranks that share one copy."""
        return self.data_parallel // self.replicate_degree


@dataclass(frozen=True, kw_only=True)
class Resume:
    """Where a checkpoint of this job may be gone on from, and why there."""

    strategies: tuple[str, ...]
    world_sizes: tuple[int, ...]
    because: str


@dataclass(frozen=True, kw_only=True)
class Export:
    formats: tuple[str, ...]
    quantization: str


@dataclass(frozen=True, kw_only=True)
class Prediction:
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    device_used_bytes: int
    host_bytes: int
    step_seconds: float
    tokens_per_second: float
    mfu: float | None
    """Model FLOPs utilization at that rate: the share of the device's peak for what the mathematics needs."""
    total_seconds: float | None
    cost_usd: float | None
    step_breakdown: dict[str, Any]
    """Seconds of a step by part."""
    pace: dict[str, Any]
    """What the profile's seconds were multiplied with, of device, host and links."""
    batch_fill: float
    """Tokens of a batch as it was expected, padding included, over those of full rows."""


@dataclass(frozen=True, kw_only=True)
class Expect:
    accelerator: str
    device_memory_bytes: int
    host_bytes: int
    disk_bytes: int
    link_bytes_per_second: float
    """Bus bandwidth that the plan counts on among the ranks of a node; 0 where there is one."""
    network_bytes_per_second: float
    """The same over all ranks; 0 where there is one node."""
    parameters: int
    trainable_parameters: int
    float8_linears: int = 0
    """Linear layers whose products are computed in float8."""


@dataclass(frozen=True, kw_only=True)
class JobFile:
    """The keys of job.json."""

    schema_version: int
    axoc_version: str
    spec_digest: str
    name: str
    base_dir: str
    model: Model
    adapter: Adapter | None
    datasets: tuple[DatasetJob, ...]
    training: Training
    eval_metrics: tuple[str, ...]
    samples: Samples
    distributed: Distributed
    resume: Resume
    export: Export
    tracking: tuple[str, ...]
    output_dir: str
    upload_to: str | None
    logging_level: str
    plugins: tuple[str, ...]
    prediction: Prediction
    expect: Expect


class Located:
    """What a job's relative paths mean."""

    base: Path
    """Where they count from."""
    model: Any
    output_dir: str

    def resolve(self, written: str) -> Path:
        return Path(os.path.normpath(self.base / Path(written).expanduser()))

    @property
    def output(self) -> Path:
        return self.resolve(self.output_dir)

    def model_source(self) -> str:
        """An absolute path where the model is a local file or folder, else its hub id."""
        if self.model.id is None:
            fix = "set model.id in the spec and plan again"
            raise RuntimeFailure("this bundle was planned from a bare config and names no model", EXIT_INPUTS, fix)
        local = self.resolve(self.model.id)
        return str(local) if local.exists() else str(self.model.id)


@dataclass(frozen=True, kw_only=True)
class Job(Located, JobFile):
    """The file, and where it lies."""

    bundle_dir: Path = field(compare=False)
    base: Path = field(compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object this was read from."""
        plain = asdict(self)
        return _lists({f.name: plain[f.name] for f in fields(JobFile)})  # type: ignore[no-any-return]


def read_job(path: Path, base_dir: str | None = None) -> Job:
    """Raises RuntimeFailure naming every problem of the file. ``base_dir`` and AXOC_BASE_DIR override the file's."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RuntimeFailure(f"{path}: cannot be read as a job: {error}", EXIT_INPUTS, "plan again") from None
    problems: list[str] = []
    if isinstance(value, dict) and value.get("schema_version") != SCHEMA_VERSION:
        found = value.get("schema_version")
        raise RuntimeFailure(f"{path}: schema_version is {found!r}, this runtime reads {SCHEMA_VERSION}", EXIT_INPUTS)
    file = read(JobFile, value, "job", problems)
    if problems:
        raise RuntimeFailure(f"{path}: " + "; ".join(problems), EXIT_INPUTS, "plan again with this version of axoc")
    bundle = path.resolve().parent
    chosen = base_dir or os.environ.get("AXOC_BASE_DIR")
    base = Path(chosen).resolve() if chosen else (bundle / file.base_dir).resolve()
    return Job(**{f.name: getattr(file, f.name) for f in fields(JobFile)}, bundle_dir=bundle, base=base)


def _lists(value: Any) -> Any:
    """Tuples back to JSON lists."""
    if isinstance(value, dict):
        return {k: _lists(v) for k, v in value.items()}
    return [_lists(v) for v in value] if isinstance(value, (list, tuple)) else value
