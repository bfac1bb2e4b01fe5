"""The model: what is trained, and how it computes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field

from axoc.spec.parts import EMPTY, NONE, Part
from axoc.spec.quantization import STORED, Quantization
from axoc.spec.tokenizer import LOADED, Tokenizer
from axoc.spec.words import Flag, Text, Words

DTYPES: Final = Words(
    ("float32", "bfloat16", "float16"),
    {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"},
)
ATTENTION: Final = Words(
    ("auto", "sdpa", "varlen", "flex", "flash_attention_2", "flash_attention_3", "flash_attention_4", "eager"),
    {
        "flash": "flash_attention_2",
        "flash_attention": "flash_attention_2",
        "fa2": "flash_attention_2",
        "fa3": "flash_attention_3",
        "fa4": "flash_attention_4",
    },
)


class Model(Part):
    """What is trained, and how it computes."""

    short: ClassVar[str | None] = "id"

    id: Annotated[str | None, Text(what="a hub id or a folder", null=True)] = Field(
        default=None, description="Hub id or local folder. May be missing in a dry run where config is given."
    )
    revision: Annotated[str | None, Text(what="a commit", null=True)] = Field(
        default=None, description="A commit of the hub. Floating references are resolved into the lock."
    )
    config: Annotated[str | None, Text(what="a path", null=True)] = Field(
        default=None, description="Path of a config.json: enough to plan with, without network or weights."
    )
    type: Annotated[str, Text(what="auto or a model family")] = Field(
        default="auto", description="Architecture family; auto reads config.json."
    )
    dtype: Annotated[str, DTYPES] = Field(default="bfloat16", description="Type of the trained weights.")
    attention: Annotated[str, ATTENTION] = Field(default="auto", description="Attention implementation.")
    kernels: Annotated[str, Words(("auto", "none", "liger", "chunked"))] = Field(
        default="auto", description="Fused kernels: all that Liger has, or a loss that makes no logits (chunked)."
    )
    compile: Annotated[bool | str, Flag(auto=True)] = Field(default="auto", description="torch.compile.")
    quantization: Annotated[Quantization | str | None, STORED] = Field(
        default=None,
        description="none, auto, a method, or a mapping with method and its options.",
        json_schema_extra=NONE,
    )
    tokenizer: Annotated[Tokenizer, LOADED] = Field(
        default_factory=Tokenizer,
        description="The tokenizer, where it is not the model's own as it comes.",
        json_schema_extra=EMPTY,
    )
    trust_remote_code: Annotated[bool, Flag()] = Field(
        default=False, description="Run Python from the model's repository with your rights."
    )
