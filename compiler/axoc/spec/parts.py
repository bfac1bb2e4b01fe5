"""Parts: the base of all models of the spec, and how short forms (a word for a mapping, one for a list) are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import core_schema

from axoc.spec.problems import wrong
from axoc.spec.scalars import is_null, show


class Part(BaseModel):
    """A mapping of the spec. Unknown keys are errors; a part with nothing under it is all defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, protected_namespaces=())
    short: ClassVar[str | None] = None
    """The key that a bare text in the mapping's place stands for."""

    @model_validator(mode="before")
    @classmethod
    def read_mapping(cls, value: Any) -> Any:
        if is_null(value):
            return {}
        if isinstance(value, str) and cls.short is not None:
            return {cls.short: value}
        if not isinstance(value, (dict, cls)):
            keys = ", ".join(list(cls.model_fields)[:6])
            raise wrong(f"is {show(value)}", expected=f"a mapping with keys like {keys}", fix="write key: value lines")
        return value


@dataclass(frozen=True)
class Before:
    """Changes a short form into the long one; JSON Schema allows both."""

    read: Callable[[Any], Any]
    json: tuple[dict[str, Any], ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self.read, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [handler(schema), *self.json]}


def _many(value: Any) -> Any:
    if is_null(value) or value == "none":
        return []
    if isinstance(value, dict):
        raise wrong("is a mapping", expected="a list, e.g. [one, two]", fix="write the names in brackets")
    return value if isinstance(value, (list, tuple)) else [value]


MANY = Before(_many, ({"type": ["string", "null"]},))
"""A list; one value stands for a list of one, and none or nothing for an empty list."""
