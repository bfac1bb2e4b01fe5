"""How frozen base weights are stored: ``nf4``, or a mapping with a method and its options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final

from pydantic import ConfigDict, Field, model_validator

from axoc.spec.hints import nearest
from axoc.spec.parts import Either, Part
from axoc.spec.problems import listed, wrong
from axoc.spec.scalars import core, is_null, printable
from axoc.spec.words import Flag, Options, Words

METHODS: Final = ("nf4", "fp4", "int8", "fp8", "awq", "gptq")
_HINTS: Final = {"4bit": "nf4", "8bit": "int8", "int4": "nf4", "bnb": "nf4", "true": "nf4", "false": "none"}
_METHOD: Final = Words(METHODS, _HINTS)
_SHORT: Final = Words(("none", "auto", *METHODS), _HINTS)


class Quantization(Part):
    """How frozen base weights are stored. Further keys are options of the method."""

    model_config = ConfigDict(extra="allow")
    short: ClassVar[str | None] = "method"

    method: Annotated[str, _METHOD] = Field(description="Storage format of the frozen weights.")
    double_quantization: Annotated[bool, Flag()] = Field(
        default=True, description="Quantize the scales too (4-bit methods)."
    )

    @model_validator(mode="before")
    @classmethod
    def check_keys(cls, value: Any) -> Any:
        """A typo of a key must not pass as an option: the weights would silently be stored in another way."""
        if not isinstance(value, dict):
            return value
        for name in value.keys() - cls.model_fields.keys():
            close = nearest(name, cls.model_fields)
            if close:
                raise wrong(
                    f"'{printable(name)}' is not a key of model.quantization", fix=f"did you mean {close}?", key=name
                )
        if "method" not in value:
            raise wrong("names no method", expected=f"method: {listed(METHODS)}", fix="add method: nf4")
        return value

    @model_validator(mode="after")
    def check_options(self) -> Quantization:
        Options().read(self.model_extra)
        return self

    @property
    def options(self) -> dict[str, Any]:
        """Keys beyond the fields, as plain data."""
        return dict(core(self.model_extra or {}))


def _read(value: Any, long: Callable[[Any], Any]) -> Any:
    if is_null(value):
        return None
    word = _SHORT.read(value) if isinstance(value, (str, bool)) else ""
    return {"none": None, "auto": "auto"}[word] if word in ("none", "auto") else long(value)


STORED: Final = Either(Quantization, _read, (_SHORT.json(), {"type": "null"}))
"""``none`` (also null), ``auto``, a method, or a Quantization."""
