"""Every field has a description, examples that load, and a unit where it may be a number."""

from __future__ import annotations

import json
from typing import Any

import pytest
from axoc.spec.examples import EXAMPLES, UNITS
from axoc.spec.fields import PARTS, all_fields
from axoc.spec.schema import json_schema
from jsonschema import Draft202012Validator

SCHEMA = json.loads(json_schema())


def schema_of(dotted: str) -> dict[str, Any]:
    prefix, _, name = dotted.rpartition(".")
    part = SCHEMA["$defs"][PARTS[prefix].__name__] if prefix else SCHEMA
    found: dict[str, Any] = part["properties"][name]
    return found


def kinds(field: dict[str, Any]) -> set[str]:
    options = [field, *field.get("anyOf", [])]
    named = {k for o in options for k in ([o["type"]] if isinstance(o.get("type"), str) else o.get("type", []))}
    return named | {"number" for o in options if isinstance(o.get("const"), int) and not isinstance(o["const"], bool)}


@pytest.mark.parametrize("dotted", list(all_fields()))
def test_a_field_explains_itself(dotted: str) -> None:
    field = schema_of(dotted)
    assert len(field["description"]) > 4 and field["examples"], dotted
    validator = Draft202012Validator({**field, "$defs": SCHEMA["$defs"]})
    for example in field["examples"]:
        assert validator.is_valid(example), (dotted, example)
    assert ("unit" in field) == bool(kinds(field) & {"number", "integer"}), dotted


def test_nothing_is_explained_that_is_not_there() -> None:
    assert not (set(EXAMPLES) | set(UNITS)) - set(all_fields())


@pytest.mark.parametrize(
    "dotted", [d for d in EXAMPLES if d.count(".") < 2 and not d.startswith(("training.grpo.", "policy.objective."))]
)
def test_examples_load_where_they_stand(dotted: str) -> None:
    """By themselves: what another field would have to be for them is not their concern."""
    from axoc.spec.document import read_document
    from axoc.spec.spec import Spec

    for example in schema_of(dotted)["examples"]:
        value: Any = example
        for key in reversed(dotted.split(".")):
            value = {key: value}
        text = json.dumps({"model": "a/b"} | value)
        Spec.model_validate(read_document(text, "spec.yaml").values)
