"""Parts: the base of all models of the spec, and how short forms (a word for a mapping, one for a list) are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import core_schema

from axoc.spec.problems import wrong
from axoc.spec.scalars import is_null, printable, show


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
            names = list(cls.model_fields)
            one = (
                f"{{{names[0]}: {printable(value)}}}, if that is meant"
                if isinstance(value, str)
                else "key: value lines"
            )
            expected = f"a mapping with keys like {', '.join(names[:6])}"
            raise wrong(f"is {show(value)}", expected=expected, fix=f"write {one}")
        return value


@dataclass(frozen=True)
class Either:
    """A structure that may also be written shorter, or be replaced by a word."""

    structure: Any
    """The type of the long form."""
    read: Callable[[Any, Callable[[Any], Any]], Any]
    """Takes the value and the reader of the long form."""
    json: tuple[dict[str, Any], ...]
    """JSON Schema of what else is allowed."""
    or_item: bool = False
    """The long form is a list, and one of its items may stand for a list of one."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_wrap_validator_function(self.read, handler.generate_schema(self.structure))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        long = handler(schema)
        return {"anyOf": [long, *([long["items"]] if self.or_item else []), *self.json]}


@dataclass(frozen=True)
class Many:
    """A list; one value stands for a list of one, and none or nothing for an empty list."""

    def read(self, value: Any) -> Any:
        if is_null(value) or (isinstance(value, str) and value == "none"):
            return []
        if isinstance(value, dict):
            raise wrong("is a mapping", expected="a list, e.g. [one, two]", fix="write the names in brackets")
        return value if isinstance(value, (list, tuple)) else [value]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self.read, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        many = handler(schema)
        return {"anyOf": [many, many["items"], {"enum": ["none", None]}]}


MANY: Final = Many()
NONE: Final[dict[str, Any]] = {"default": "none"}
EMPTY: Final[dict[str, Any]] = {"default": {}}
"""What JSON Schema shows as defaults that Python holds in another form."""
