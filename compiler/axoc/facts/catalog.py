"""The model catalog: published config.json values by hub id, one JSON file a model, found through index.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, cast

INDEX_NAME: Final = "index.json"
_PACKAGE: Final = "axoc.facts"
_FOLDER: Final = ("data", "models")


@dataclass(frozen=True, kw_only=True)
class CatalogEntry:
    id: str
    aliases: tuple[str, ...]
    """Other hub ids with the same shape: instruct variants, mirrors, older names."""
    license: str
    gated: bool
    """True where the hub asks for an agreement before the download."""
    source: str
    config: dict[str, Any]


def find_entry(model_id: str) -> CatalogEntry | None:
    """The entry for a hub id or alias, whatever its case; None where the catalog has none."""
    name = _index().get(model_id.lower())
    return None if name is None else load_entry(name)


def load_entry(file_name: str) -> CatalogEntry:
    """One entry by its file name in data/models."""
    values = json.loads(_read(file_name))
    return CatalogEntry(**{**values, "aliases": tuple(values["aliases"])})


def entry_files() -> tuple[str, ...]:
    """File names of all entries, sorted; from the index, without opening them."""
    return tuple(sorted(set(_index().values())))


def close_ids(model_id: str, limit: int = 3) -> tuple[str, ...]:
    """Known ids near to this one, the nearest first, in their published spelling."""
    known = _index()
    by_name: dict[str, str] = {}
    for alias in known:
        by_name.setdefault(alias.rpartition("/")[2], alias)
    wanted = model_id.lower()
    near = get_close_matches(wanted, known, n=limit, cutoff=0.6)
    short = get_close_matches(wanted.rpartition("/")[2], by_name, n=limit, cutoff=0.6)
    found = dict.fromkeys(published_id(alias) for alias in (*near, *(by_name[s] for s in short)))
    return tuple(found)[:limit]


def published_id(alias: str) -> str:
    """The spelling that the entry gives for one of its lower-case names."""
    entry = find_entry(alias)
    assert entry is not None, alias
    return next(name for name in (entry.id, *entry.aliases) if name.lower() == alias)


def build_index(folder: Path) -> str:
    """The text of index.json for the entries in ``folder``: lower-case id or alias -> file name.

    Raises ValueError where two entries claim one name.
    """
    index: dict[str, str] = {}
    for path in sorted(p for p in folder.glob("*.json") if p.name != INDEX_NAME):
        entry = json.loads(path.read_text(encoding="utf-8"))
        for name in (entry["id"], *entry["aliases"]):
            if index.setdefault(name.lower(), path.name) != path.name:
                raise ValueError(f"{name} is in {index[name.lower()]} and in {path.name}")
    return json.dumps(dict(sorted(index.items())), indent=1) + "\n"


def rewrite_index(folder: Path) -> None:
    """Brings index.json in step with the entries: ``python -c "from axoc.facts.catalog import ..."``."""
    (folder / INDEX_NAME).write_text(build_index(folder), encoding="utf-8")


@cache
def _index() -> dict[str, str]:
    return cast("dict[str, str]", json.loads(_read(INDEX_NAME)))


def _read(file_name: str) -> str:
    return files(_PACKAGE).joinpath(*_FOLDER, file_name).read_text(encoding="utf-8")
