"""The catalog: index in step, every entry complete and readable."""

from __future__ import annotations

import json
from pathlib import Path

import axoc.facts
import pytest
from axoc.facts.catalog import INDEX_NAME, build_index, close_ids, entry_files, load_entry
from axoc.facts.families.registry import BUILTIN, MODEL_TYPES, family_named
from axoc.facts.models import lookup_model

FOLDER = Path(axoc.facts.__file__).parent / "data" / "models"


def test_index_is_in_step() -> None:
    assert (FOLDER / INDEX_NAME).read_text(encoding="utf-8") == build_index(FOLDER), "call catalog.rewrite_index"


def test_two_entries_cannot_claim_one_name(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps({"id": name, "aliases": ["Same/Id"]}))
    with pytest.raises(ValueError, match="Same/Id"):
        build_index(tmp_path)


def test_there_are_enough_models_of_every_family() -> None:
    assert len(entry_files()) >= 40
    used = {lookup_model(load_entry(f).id, None, None, "auto")[0].family for f in entry_files()}
    assert used == set(BUILTIN) - {"generic"}


@pytest.mark.parametrize("file", entry_files())
def test_entries_are_complete(file: str) -> None:
    entry = load_entry(file)
    facts, _ = lookup_model(entry.id, None, None, "auto")
    assert facts.model_type == entry.config["model_type"]
    assert entry.license and entry.source
    assert not {"auto_map", "quantization_config"} & entry.config.keys()


def test_close_ids_are_spelled_as_published() -> None:
    assert close_ids("qwen/qwen2.5-7b-instuct")[0] == "Qwen/Qwen2.5-7B-Instruct"
    assert "mistralai/Mistral-7B-v0.3" in close_ids("Mistral-7B-v0.3")


def test_registry_names_agree_with_the_classes() -> None:
    for name in BUILTIN:
        assert family_named(name).name == name
    for model_type, name in MODEL_TYPES.items():
        assert model_type in family_named(name).model_types
    assert set(MODEL_TYPES) == {t for name in BUILTIN for t in family_named(name).model_types}
