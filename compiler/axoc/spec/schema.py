"""JSON Schema of the spec, for editors."""

from __future__ import annotations

import json
from typing import Any, Final

from axoc.spec.spec import VERSION, Spec

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> str:
    """Draft 2020-12, as text with a final newline."""
    schema: dict[str, Any] = {"$schema": DIALECT, **Spec.model_json_schema()}
    schema["title"] = f"axoc spec, version {VERSION}"
    schema["description"] = "What to fine-tune, on what data, how. Values that are auto are chosen by axoc plan."
    return json.dumps(_tidy(schema), indent=2, ensure_ascii=False) + "\n"


def _tidy(schema: Any) -> Any:
    """Without pydantic's titles (field names again), and with parts that may be left empty (``training:``)."""
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {k: _tidy(v) for k, v in schema.items() if not (k == "title" and isinstance(v, str))}
    reference = {"$ref": kept.pop("$ref")} if "$ref" in kept and "default" in kept else None
    return {"anyOf": [reference, {"type": "null"}], **kept} if reference else kept
