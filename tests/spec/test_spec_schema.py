"""The JSON Schema: valid, current on disk, and of one mind with load_spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from axoc.spec.document import read_document
from axoc.spec.fields import PARTS
from axoc.spec.init import starter_spec
from axoc.spec.scalars import core
from axoc.spec.schema import json_schema
from jsonschema import Draft202012Validator
from spec.specimens import MALFORMED, ROOT, SPECS
from spec.test_spec_good import CONTRACT

SCHEMA = json.loads(json_schema())
VALIDATOR = Draft202012Validator(SCHEMA)


def plain(text: str) -> Any:
    """As an editor sees it: read by YAML 1.2's core schema."""
    return core(read_document(text, "spec.yaml").values)


def test_it_is_a_schema_of_its_draft() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(SCHEMA)
    assert json_schema().endswith("}\n")


def test_the_committed_schema_is_current() -> None:
    assert (ROOT / "specs" / "spec.schema.json").read_text() == json_schema(), "axoc schema > specs/spec.schema.json"


def test_the_committed_config_is_the_catalogs() -> None:
    entry = json.loads((ROOT / "compiler/axoc/facts/data/models/smollm2-135m.json").read_text())
    assert json.loads((ROOT / "specs" / "smollm2-135m.config.json").read_text()) == entry["config"]


def test_every_field_is_described_and_has_a_default() -> None:
    mappings = {"": SCHEMA, **SCHEMA["$defs"]}
    fields = {f"{name}.{key}": field for name, part in mappings.items() for key, field in part["properties"].items()}
    assert len(fields) == sum(len(part.model_fields) for part in PARTS.values())
    assert [n for n, f in fields.items() if not f.get("description")] == []
    assert [n for n, f in fields.items() if "default" not in f] == ["Objective.usd_per_hour", "Quantization.method"]


def test_unknown_keys_are_refused_everywhere_but_in_options() -> None:
    opened = [n for n, d in {"": SCHEMA, **SCHEMA["$defs"]}.items() if d["additionalProperties"] is not False]
    assert opened == ["Quantization"]


def test_defaults_validate() -> None:
    for name, part in {"": SCHEMA, **SCHEMA["$defs"]}.items():
        for key, field in part["properties"].items():
            if "default" in field:
                own = Draft202012Validator({**field, "$defs": SCHEMA["$defs"]})
                assert own.is_valid(field["default"]), f"{name}.{key}"


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_example_specs_validate_and_name_the_schema(path: Path) -> None:
    text = path.read_text()
    first, second = text.splitlines()[:2]
    assert first == "# yaml-language-server: $schema=spec.schema.json"
    assert second.startswith("# "), "says what it shows"
    assert list(VALIDATOR.iter_errors(plain(text))) == []


@pytest.mark.parametrize("text", [CONTRACT, starter_spec()], ids=["contract", "starter"])
def test_other_good_specs_validate(text: str) -> None:
    assert list(VALIDATOR.iter_errors(plain(text))) == []


DOCUMENTS = [path for path in MALFORMED if "# schema: no document\n" not in path.read_text()]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_the_schema_refuses_what_it_can_see(path: Path) -> None:
    text = path.read_text()
    assert VALIDATOR.is_valid(plain(text)) is ("# schema: cannot see it\n" in text)
