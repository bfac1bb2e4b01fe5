"""Requests and facts for tests: a whole PlanRequest from a few words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from axoc.facts.inventory import parse_inventory
from axoc.facts.models import lookup_model
from axoc.facts.stored import as_stored, read_stored
from axoc.ir.facts import DataFacts
from axoc.ir.plan import NoPlan, Plan
from axoc.ir.request import AdapterRequest, PlanRequest
from axoc.search.choose import Facts, search
from axoc.spec.load import load_spec

LORA = AdapterRequest(type="lora", rank=16, alpha=32.0, dropout=0.0, targets="all-linear")


def request(model: str, **changes: Any) -> PlanRequest:
    """A default request; ``training__epochs=2`` sets one field of a part, ``adapter=LORA`` a whole one."""
    made = load_spec(
        f"model: {model}\ndataset: {{path: data/train.jsonl, max_seq_length: 2048}}\n".encode(), "spec.yaml"
    )
    for name, value in changes.items():
        part, _, field = name.partition("__")
        if part == "dataset":
            made = replace(made, datasets=tuple(replace(d, **{field: value}) for d in made.datasets))
        elif field:
            made = replace(made, **{part: replace(getattr(made, part), **{field: value})})
        else:
            made = replace(made, **{part: value})
    return made


def facts(made: PlanRequest, inventory: str, rows: int | None = 10_000) -> Facts:
    model, _ = lookup_model(made.model.id, None, None, made.model.type, sees=made.model.vision)
    data = tuple(DataFacts(path=d.path, rows=rows) for d in made.datasets)
    return Facts(model=model, clusters=parse_inventory(inventory, None, None), data=data, spec_digest="sha256:0")


def asked(
    model: str, inventory: str, rows: int | None = 10_000, stored: dict[str, Any] | None = None, **changes: Any
) -> tuple[PlanRequest, Facts]:
    """What a search is given. ``stored``: the quantization_config of the model's config.json."""
    made = request(model, **changes)
    found = facts(made, inventory, rows)
    found = replace(found, model=replace(found.model, stored=read_stored(stored)))
    return as_stored(made, found.model.stored), found


def plan(
    model: str, inventory: str, rows: int | None = 10_000, stored: dict[str, Any] | None = None, **changes: Any
) -> Plan | NoPlan:
    return search(*asked(model, inventory, rows, stored, **changes))
