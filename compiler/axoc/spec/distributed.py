"""Distribution: how the run is spread over devices, and what each may use."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from axoc.spec.numbers import Number, Whole
from axoc.spec.parts import Part
from axoc.spec.scalars import is_null
from axoc.spec.words import Text, Words

STRATEGIES: Final = Words(
    ("auto", "ddp", "fsdp", "zero1", "zero2", "zero3"),
    {
        "single": "write type: ddp with gpu_count: 1, which is a single process",
        "none": "write type: ddp with gpu_count: 1, which is a single process",
        "deepspeed": "zero2",
        "zero": "zero3",
        "fsdp2": "fsdp",
        "full_shard": "fsdp",
    },
)
PRECISIONS: Final = Words(
    ("no", "bf16", "fp16", "fp8"),
    {"bfloat16": "bf16", "float16": "fp16", "none": "no", "false": "no", "off": "no", "fp32": "no", "float32": "no"},
)
OFFLOADS: Final = Words(
    ("auto", "none", "optimizer", "optimizer+parameters"),
    {"all": "optimizer+parameters", "cpu": "optimizer", "parameters": "optimizer+parameters", "false": "none"},
)


class Gpus(Whole):
    """A count; auto and null both leave it to the inventory."""

    def read(self, value: Any) -> Any:
        return None if is_null(value) or value == "auto" else super().read(value)


class Distributed(Part):
    type: Annotated[str, STRATEGIES] = Field(default="auto", description="How training is spread over devices.")
    gpu_count: Annotated[int | None, Gpus(words=("auto", "null"))] = Field(
        default=None, description="Devices; by default all of the inventory. On a CPU: processes."
    )
    model_parallel_size: Annotated[int | str, Whole(words=("auto",))] = Field(
        default=1, description="Tensor parallel degree."
    )
    replicate_degree: Annotated[int | str, Whole(words=("auto",))] = Field(
        default="auto",
        description="Hybrid shard: copies of the model, each sharded by FSDP over an equal part of the devices.",
    )
    min_unit_parameters: Annotated[int | str, Whole(words=("auto",))] = Field(
        default="auto",
        description="FSDP gathers and reduces so many blocks together that they have at least so many parameters.",
    )
    mixed_precision: Annotated[str, PRECISIONS] = Field(
        default="bf16",
        description="Type that autocast computes in; fp8: bf16, and products of the blocks' linear layers in float8.",
    )
    memory_budget_per_gpu_gb: Annotated[float | None, Number(open_minimum=True, maximum=1e6, words=("null",))] = Field(
        default=None, description="GiB of a device that the run may use, as nvidia-smi shows them; by default all."
    )
    offload: Annotated[str, OFFLOADS] = Field(default="auto", description="Keep states in host memory.")
    config_path: Annotated[str | None, Text(what="a path", null=True)] = Field(
        default=None, description="A hand-written DeepSpeed or FSDP configuration: checked, then used as it is."
    )
