"""The adapter trained beside frozen weights: ``lora``, or a mapping."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from axoc.spec.numbers import Number, Whole
from axoc.spec.parts import MANY, Either, Part
from axoc.spec.problems import wrong
from axoc.spec.scalars import is_null, printable, show
from axoc.spec.words import Flag, Text, Words

ALL_LINEAR: Final = "all-linear"
_HINTS: Final = {
    "qlora": "write adapter: lora, and model.quantization: nf4",
    "dora": "write adapter: {type: lora, use_dora: true}",
    "true": "lora",
    "false": "none",
}
_TYPE: Final = Words(("lora",), _HINTS)
_SHORT: Final = Words(("none", "lora"), _HINTS)
_INITS: Final = Words(("default", "gaussian", "pissa", "loftq"), {"true": "default", "kaiming": "default"})
_Name = Annotated[str, Text(what="a module name")]
_Names = tuple[_Name, ...]
_TARGETED: Final = f"{ALL_LINEAR}, a list of module names, or a pattern of whole module paths"
_META: Final = frozenset("*+?()[]{}|\\^$")
"""Without one of these a text is a module's name, or its path."""
_LONGEST_PATTERN: Final = 1000


def _read_targets(value: Any, long: Callable[[Any], Any]) -> Any:
    if isinstance(value, str) and value == ALL_LINEAR:
        return ALL_LINEAR
    if isinstance(value, (list, tuple)) and value:
        return long(value)
    if isinstance(value, str) and _META & set(value):
        return _read_pattern(str(value))
    fix = f"write [{printable(value)}] for a module of this name" if isinstance(value, str) and value else None
    raise wrong(f"is {show(value)}", expected=_TARGETED, fix=fix)


def _read_pattern(text: str) -> str:
    if len(text) > _LONGEST_PATTERN:
        raise wrong(f"is {len(text):,} characters long", expected=f"at most {_LONGEST_PATTERN:,} characters")
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        fix = r"e.g. '.*\.(q|v)_proj': a regular expression that fits the whole path"
        raise wrong(f"is no regular expression: {error}", expected=_TARGETED, fix=fix) from None
    return text


_TARGETS: Final = Either(
    _Names, _read_targets, ({"const": ALL_LINEAR}, {"type": "string", "pattern": r"[*+?(){}\[\]|\\^$]"})
)


class Adapter(Part):
    """Trainable low-rank matrices beside frozen weights."""

    short: ClassVar[str | None] = "type"

    type: Annotated[str, _TYPE] = Field(default="lora", description="Kind of adapter.")
    rank: Annotated[int, Whole(maximum=65536)] = Field(default=16, description="Rank of the matrices.")
    alpha: Annotated[float, Number(open_minimum=True)] = Field(default=32.0, description="Scale: alpha / rank.")
    dropout: Annotated[float, Number(maximum=1.0, open_maximum=True)] = Field(
        default=0.0, description="Dropout before it."
    )
    targets: Annotated[str | tuple[str, ...], _TARGETS] = Field(
        default=ALL_LINEAR,
        description="Layers to adapt: all-linear, a list of module names, or a pattern of their whole paths.",
    )
    use_rslora: Annotated[bool, Flag()] = Field(default=False, description="Scale by alpha / sqrt(rank) instead.")
    use_dora: Annotated[bool, Flag()] = Field(default=False, description="Train magnitudes apart (DoRA).")
    init: Annotated[str, _INITS] = Field(
        default="default",
        description="What the matrices begin as: default (no change of the model), pissa (its own principal part), "
        "loftq (what 4-bit storage lost).",
    )
    init_iterations: Annotated[int | None, Whole(maximum=1000, words=("null",))] = Field(
        default=None, description="pissa: rounds of a randomized decomposition; exact, and slow, where not set."
    )
    loraplus_lr_ratio: Annotated[float | None, Number(minimum=1.0, words=("null",))] = Field(
        default=None, description="LoRA+: the second matrix learns this many times faster than the first."
    )
    modules_to_save: Annotated[_Names, MANY] = Field(
        default=(), description="Vocabulary matrices to train in full beside the adapter, e.g. [lm_head]."
    )


def _read(value: Any, long: Callable[[Any], Any]) -> Any:
    if is_null(value):
        return None
    return None if isinstance(value, (str, bool)) and _SHORT.read(value) == "none" else long(value)


ADAPTED: Final = Either(Adapter, _read, (_SHORT.json(), {"type": "null"}))
"""``none`` (also null), ``lora``, or an Adapter."""
