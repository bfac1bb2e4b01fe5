"""JSON Schema of the spec, for editors."""

from __future__ import annotations

import json
from typing import Any, Final

from axoc.spec.examples import EXAMPLES, UNITS
from axoc.spec.fields import PARTS
from axoc.spec.spec import VERSION, Spec

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> str:
    """Draft 2020-12, as text with a final newline."""
    schema: dict[str, Any] = {"$schema": DIALECT, **Spec.model_json_schema()}
    for prefix, part in PARTS.items():
        properties = (schema["$defs"][part.__name__] if prefix else schema)["properties"]
        for name, field in properties.items():
            _annotate(field, f"{prefix}.{name}" if prefix else name)
    schema["title"] = f"axoc spec, version {VERSION}"
    schema["description"] = "What to fine-tune, on what data, how. Values that are auto are chosen by axoc plan."
    return json.dumps(_tidy(schema), indent=2, ensure_ascii=False) + "\n"


def _annotate(field: dict[str, Any], dotted: str) -> None:
    """Unit, into the description as well, which is what editors show; examples, where the schema does not list all values."""
    unit = UNITS.get(dotted)
    if unit is not None:
        field["unit"] = unit
    if unit is not None and not unit.startswith("none"):
        field["description"] = f"{field['description']} Unit: {unit}."
    found = EXAMPLES.get(dotted) or _all_values(field)
    if found:
        field["examples"] = list(found)


def _all_values(field: dict[str, Any]) -> list[Any]:
    """Words, flags and constants speak for themselves."""
    options = [field, *field.get("anyOf", [])]
    flags = [v for o in options if o.get("type") == "boolean" for v in (True, False)]
    words = [v for o in options for v in (*o.get("enum", ()), *([o["const"]] if "const" in o else ()))]
    listed = [[v] for o in options for v in o.get("items", {}).get("enum", ())]
    return [v for v in (*flags, *words, *listed) if v is not None]


def _tidy(schema: Any) -> Any:
    """Without pydantic's titles (field names again), and with parts that may be left empty (``training:``)."""
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {k: _tidy(v) for k, v in schema.items() if not (k == "title" and isinstance(v, str))}
    reference = {"$ref": kept.pop("$ref")} if "$ref" in kept and "default" in kept else None
    return {"anyOf": [reference, {"type": "null"}], **kept} if reference else kept
