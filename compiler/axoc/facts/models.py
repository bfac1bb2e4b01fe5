"""lookup_model: from a hub id or a config.json to ModelFacts. Pure: the caller reads the user's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from axoc.errors import Diagnostic, UserError
from axoc.facts.catalog import CatalogEntry, close_ids, find_entry
from axoc.facts.closed import closed_diagnostic, is_closed
from axoc.facts.families.base import ModelFamily
from axoc.facts.families.registry import family_for, family_named
from axoc.facts.stored import read_stored, told, why_not
from axoc.facts.vision.registry import read_seeing
from axoc.ir.facts import ModelFacts

AUTO = "auto"


def lookup_model(
    model_id: str | None,
    config: dict[str, Any] | None,
    config_name: str | None,
    type_: str,
    *,
    scan_plugins: bool = False,
    sees: bool = False,
) -> tuple[ModelFacts, list[str]]:
    """Facts of a model and warnings about them.

    ``config`` is the parsed config.json and ``config_name`` the file it came from; without it the catalog is asked
    by hub id. ``scan_plugins`` lets installed plugins replace built-in families; ``sees``: rows have images, so that the
    part that sees them is read too. Raises UserError.
    """
    if model_id is not None and is_closed(model_id):
        raise UserError(closed_diagnostic(model_id))
    if config is not None:
        return _from_config(model_id or config_name or "config.json", config, config_name, type_, scan_plugins, sees)
    entry = _catalog_entry(model_id)
    facts, warnings = _from_config(model_id or entry.id, entry.config, None, type_, scan_plugins, sees)
    return replace(facts, license=entry.license, source=entry.source), warnings


def _from_config(
    model_id: str, config: Mapping[str, Any], file: str | None, type_: str, scan: bool, sees: bool
) -> tuple[ModelFacts, list[str]]:
    if not isinstance(config, Mapping):
        raise UserError(Diagnostic(message="this is no config.json", file=file, expected="a JSON object at the top"))
    family = None if sees else _family(config, file, type_, scan)
    facts = family.parse(config, model_id=model_id, file=file) if family else read_seeing(config, model_id, file)
    source = f"config.json: {file}" if file else ""
    stored = read_stored(config.get("quantization_config"))
    facts = replace(facts, source=source, file_dtype=_file_dtype(config), stored=stored)
    notes = [told(stored)] if stored is not None and why_not(stored) is None else []
    return facts, [*(family.warnings(config) if family else ()), *notes]


def _file_dtype(config: Mapping[str, Any]) -> str | None:
    """``dtype`` since transformers 5, ``torch_dtype`` before; multimodal models say it of their language part."""
    inner = config.get("text_config")
    places = (config, inner if isinstance(inner, Mapping) else {})
    found = next((v for p in places for k in ("dtype", "torch_dtype") if isinstance(v := p.get(k), str)), None)
    return None if found is None else found.removeprefix("torch.")


def _family(config: Mapping[str, Any], file: str | None, type_: str, scan: bool) -> ModelFamily:
    model_type = config.get("model_type")
    if model_type is not None and not isinstance(model_type, str):
        raise UserError(Diagnostic(message=f"model_type is {model_type!r}", file=file, expected="text"))
    if type_ == AUTO:
        return family_for(model_type, scan=scan)
    family = family_named(type_, scan=scan)
    if model_type and family.model_types and model_type not in family.model_types:
        raise UserError(_contradiction(type_, model_type, family_for(model_type, scan=scan), file))
    return family


def _contradiction(type_: str, model_type: str, right: ModelFamily, file: str | None) -> Diagnostic:
    return Diagnostic(
        message=f"model.type is {type_}, but the config's model_type is {model_type}",
        file=file,
        expected=f"model.type: {right.name}",
        fix="leave model.type on auto",
    )


def _catalog_entry(model_id: str | None) -> CatalogEntry:
    if model_id is None:
        raise UserError(
            Diagnostic(message="no model is named", fix="give model.id, or model.config: path of a config.json")
        )
    entry = find_entry(model_id)
    if entry is None:
        raise UserError(_unknown_model(model_id))
    return entry


def _unknown_model(model_id: str) -> Diagnostic:
    close = close_ids(model_id)
    hint = f"did you mean {' or '.join(close)}? Else " if close else ""
    return Diagnostic(
        message=f"the shape of {model_id} is not in the catalog, and model.config is not given",
        expected="a model of the catalog, or its config.json",
        fix=f"{hint}give model.config: path of its config.json",
    )
