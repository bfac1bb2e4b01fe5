"""Writes docs/spec.md from the spec's JSON Schema. Run by `make golden`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
TARGET: Final = ROOT / "docs/spec.md"
HEAD: Final = """# The spec, version 1

Made from `axoc schema`: do not edit. Unknown keys are errors. Every value that may be `auto` may also be set, and then
it is kept or refused with a reason, never silently changed. Relative paths count from the working directory; files that
are read at plan time are also looked for beside the spec.
"""


def document() -> str:
    from axoc.spec.schema import json_schema

    schema = json.loads(json_schema())
    sections = [_section("", schema, schema)]
    for name, value in schema["properties"].items():
        found = _object(value, schema)
        if found is not None:
            sections.append(_section(name, found, schema))
    return "\n".join([HEAD, *sections])


def _section(name: str, value: dict[str, Any], schema: dict[str, Any]) -> str:
    title = f"## {name}" if name else "## Top level"
    rows = [_row(key, v, schema) for key, v in value["properties"].items()]
    return "\n".join([title, "", "| key | values | default | what |", "|---|---|---|---|", *rows, ""])


def _row(key: str, value: dict[str, Any], schema: dict[str, Any]) -> str:
    default = "" if "default" not in value else f"`{json.dumps(value['default'])}`"
    about = value.get("description") or (_object(value, schema) or {}).get("description", "")
    cells = (f"`{key}`", _values(value, schema), default, about)
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def _values(value: dict[str, Any], schema: dict[str, Any]) -> str:
    """The kinds of value in a few words."""
    options = value.get("anyOf") or value.get("oneOf")
    if options:
        words = [w for o in options for w in _values(o, schema).split(", ")]
        return ", ".join(dict.fromkeys(filter(None, words)))
    if "$ref" in value:
        return f"[mapping](#{_name_of(value, schema)})"
    if "enum" in value:
        return ", ".join(f"`{json.dumps(v) if not isinstance(v, str) else v}`" for v in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    kind = value.get("type")
    if isinstance(kind, list):
        return ", ".join(kind)
    if kind == "array":
        return f"list of {_values(value.get('items', {}), schema) or 'values'}"
    low, high = _bound(value, "inimum", ">"), _bound(value, "aximum", "<")
    return " ".join(filter(None, (f"{kind}" if kind else "", low, high if "2147483647" not in high else "")))


def _bound(value: dict[str, Any], stem: str, sign: str) -> str:
    if f"exclusiveM{stem}" in value:
        return f"{sign} {value[f'exclusiveM{stem}']:g}"
    return f"{sign}= {value[f'm{stem}']:g}" if f"m{stem}" in value else ""


def _name_of(value: dict[str, Any], schema: dict[str, Any]) -> str:
    return str(value["$ref"]).rpartition("/")[2].lower()


def _object(value: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any] | None:
    """The mapping a key may hold, wherever it stands among the options."""
    if "$ref" in value:
        found: dict[str, Any] = schema["$defs"][str(value["$ref"]).rpartition("/")[2]]
        return found if "properties" in found else None
    options = [*value.get("anyOf", []), *value.get("oneOf", []), *value.get("allOf", [])]
    return next((o for o in (_object(v, schema) for v in options) if o is not None), None)


def main() -> int:
    TARGET.write_text(document(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
