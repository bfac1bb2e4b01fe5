"""The model, how its frozen weights are stored, and the adapter trained on top of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final

from pydantic import ConfigDict, Field, model_validator

from axoc.spec.hints import nearest
from axoc.spec.numbers import Number, Whole
from axoc.spec.parts import MANY, Before, Part
from axoc.spec.problems import listed, wrong
from axoc.spec.scalars import core, is_null, show
from axoc.spec.words import Flag, Options, Text, Words

DTYPES: Final = Words(
    ("float32", "bfloat16", "float16"),
    {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"},
)
ATTENTION: Final = Words(
    ("auto", "sdpa", "varlen", "flex", "flash_attention_2", "eager"),
    {"flash": "flash_attention_2", "flash_attention": "flash_attention_2", "fa2": "flash_attention_2"},
)
METHODS: Final = Words(
    ("nf4", "fp4", "int8", "fp8", "awq", "gptq"),
    {"4bit": "nf4", "8bit": "int8", "int4": "nf4", "bnb": "nf4", "true": "nf4"},
)
ADAPTERS: Final = Words(
    ("lora",), {"qlora": "write adapter: lora and model.quantization: nf4", "dora": "write type: lora, use_dora: true"}
)


TARGETS_SEEN: Final = "all-linear, or a list of module names"


class Quantization(Part):
    """How frozen base weights are stored. Further keys are options of the method."""

    model_config = ConfigDict(extra="allow")
    short: ClassVar[str | None] = "method"

    method: Annotated[str, METHODS] = Field(description="Storage format of the frozen weights.")
    double_quantization: Annotated[bool, Flag()] = Field(True, description="Quantize the scales too (4-bit methods).")

    @model_validator(mode="before")
    @classmethod
    def check_keys(cls, value: Any) -> Any:
        """A typo of a key must not pass as an option: the weights would silently be stored in another way."""
        if not isinstance(value, dict):
            return value
        for name in value.keys() - cls.model_fields.keys():
            close = nearest(name, cls.model_fields)
            if close:
                raise wrong(f"{show(name)} is no option", fix=f"did you mean {close}?", key=name)
        if "method" not in value:
            raise wrong("names no method", expected=f"method: {listed(METHODS.words)}", fix="add method: nf4")
        return value

    @model_validator(mode="after")
    def check_options(self) -> Quantization:
        Options().read(self.model_extra)
        return self

    @property
    def options(self) -> dict[str, Any]:
        """Keys beyond the fields, as plain data."""
        return dict(core(self.model_extra or {}))


class Adapter(Part):
    """Trainable low-rank matrices beside frozen weights."""

    short: ClassVar[str | None] = "type"

    type: Annotated[str, ADAPTERS] = Field("lora", description="Kind of adapter.")
    rank: Annotated[int, Whole(maximum=65536)] = Field(16, description="Rank of the matrices.")
    alpha: Annotated[float, Number(open_minimum=True)] = Field(32.0, description="Scale: alpha / rank.")
    dropout: Annotated[float, Number(maximum=1.0, open_maximum=True)] = Field(0.0, description="Dropout before it.")
    targets: Annotated[str | tuple[Annotated[str, Text(what="a module name")], ...], Targets()] = Field(
        "all-linear", description="Layers to adapt: all-linear, or a list of module names."
    )
    use_rslora: Annotated[bool, Flag()] = Field(False, description="Scale by alpha / sqrt(rank) instead.")
    use_dora: Annotated[bool, Flag()] = Field(False, description="Train magnitudes apart (DoRA).")
    modules_to_save: Annotated[tuple[Annotated[str, Text(what="a module name")], ...], MANY] = Field(
        (), description="Modules to train in full beside the adapter, e.g. [lm_head]."
    )


class Model(Part):
    """What is trained, and how it computes."""

    short: ClassVar[str | None] = "id"

    id: Annotated[str | None, Text(what="a hub id or a folder", null=True)] = Field(
        None, description="Hub id or local folder. May be missing in a dry run where config is given."
    )
    revision: Annotated[str | None, Text(what="a commit", null=True)] = Field(
        None, description="A commit of the hub. Floating references are resolved into the lock."
    )
    config: Annotated[str | None, Text(what="a path", null=True)] = Field(
        None, description="Path of a config.json: enough to plan with, without network or weights."
    )
    type: Annotated[str, Text(what="auto or a model family")] = Field(
        "auto", description="Architecture family; auto reads config.json."
    )
    dtype: Annotated[str, DTYPES] = Field("bfloat16", description="Type of the trained weights.")
    attention: Annotated[str, ATTENTION] = Field("auto", description="Attention implementation.")
    kernels: Annotated[str, Words(("auto", "none", "liger"))] = Field("auto", description="Fused kernels.")
    compile: Annotated[bool | str, Flag(auto=True)] = Field("auto", description="torch.compile.")
    quantization: Annotated[Quantization | str | None, Stored()] = Field(
        None, description="none, auto, a method, or a mapping with method and its options.", json_schema_extra=NONE
    )
    trust_remote_code: Annotated[bool, Flag()] = Field(
        False, description="Run Python from the model's repository with your rights."
    )
