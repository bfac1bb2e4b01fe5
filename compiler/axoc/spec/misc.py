"""Small parts: export, policy, samples."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from axoc.spec.numbers import Number, Whole
from axoc.spec.objective import OBJECTIVE, Objective
from axoc.spec.parts import MANY, Part
from axoc.spec.words import Flag, Text, Words

PINS: Final = Words(("model", "data", "packages"), {"dataset": "data", "requirements": "packages", "revision": "model"})
_Positive = Number(open_minimum=True, words=("null",))


class Export(Part):
    formats: Annotated[tuple[Annotated[str, Text(what="a format")], ...], MANY] = Field(
        default=(),
        description="Formats to write after training, each checked by its consumer: safetensors, pytorch, vllm, gguf, onnx, "
        "ort, openvino, tensorrt, mlx; with a quantization as format:quantization, e.g. gguf:q4_k_m.",
    )
    quantization: Annotated[str, Text(what="none or a method")] = Field(
        default="none", description="Quantization of every format that has it and names none itself."
    )


class Policy(Part):
    """Limits: what breaks them is refused."""

    max_cost_usd: Annotated[float | None, _Positive] = Field(default=None, description="Most dollars for the run.")
    max_hours: Annotated[float | None, _Positive] = Field(default=None, description="Most hours for the run.")
    objective: Annotated[Objective | str, OBJECTIVE] = Field(
        default="auto",
        description="What the plan is chosen for: time, cost, or {usd_per_hour: X}, dollars plus X for each hour; "
        "auto is time, and cost where the inventory has several kinds.",
    )
    max_gpus: Annotated[int | None, Whole(words=("null",))] = Field(default=None, description="Most devices.")
    memory_safety: Annotated[float, Number(maximum=0.5)] = Field(
        default=0.03, description="Share of each device's memory kept free on top of the prediction."
    )
    allowed_images: Annotated[tuple[Annotated[str, Text(what="an image")], ...], MANY] = Field(
        default=(), description="Container images that may be used; * stands for anything, e.g. nvidia/cuda:13.*."
    )
    allowed_registries: Annotated[tuple[Annotated[str, Text(what="a registry")], ...], MANY] = Field(
        default=(), description="Registries that images may come from, e.g. docker.io, or ghcr.io/acme."
    )
    allowed_licenses: Annotated[tuple[Annotated[str, Text(what="a licence")], ...], MANY] = Field(
        default=(), description="Licences that the model may have, e.g. apache-2.0, or llama3*. One not known has none."
    )
    no_remote_code: Annotated[bool, Flag()] = Field(
        default=False, description="Refuse model.trust_remote_code and plugins, which are code of others."
    )
    no_telemetry: Annotated[bool, Flag()] = Field(
        default=False, description="Refuse trackers that may send what they log to a service: all but tensorboard."
    )
    required_pins: Annotated[tuple[Annotated[str, PINS], ...], MANY] = Field(
        default=(), description="What must be pinned: the model by commit, the data by digest, packages by hash."
    )


class Samples(Part):
    """Questions asked of the base and of the trained model at the end."""

    prompts: Annotated[tuple[Annotated[str, Text(what="a prompt", lines=True)], ...], MANY] = Field(
        default=(), description="The questions."
    )
    max_new_tokens: Annotated[int, Whole(maximum=65536)] = Field(default=96, description="Longest answer.")
