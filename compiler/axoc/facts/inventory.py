"""Inventories: the short form ``h100-sxm-80gb:8x4,a100-sxm-80gb:8``, or a YAML file (see inventory_file)."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Final

from axoc.errors import Diagnostic, UserError
from axoc.facts.accelerators import accelerator_names, find_accelerator
from axoc.facts.cluster import typical_cluster, with_processes
from axoc.ir.facts import ClusterFacts

__all__ = ["detect", "parse_inventory", "with_processes"]

_ITEM: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]+?)(:(?P<per_node>[0-9]{1,4})(x(?P<nodes>[0-9]{1,5}))?)?")
_FORM: Final = "NAME, NAME:PER_NODE or NAME:PER_NODExNODES, e.g. h100-sxm-80gb:8x4; a comma lists kinds to choose from"
_FILE_SUFFIXES: Final = (".yaml", ".yml", ".json")


def parse_inventory(text: str, file_text: str | None, file_name: str | None) -> tuple[ClusterFacts, ...]:
    """``text`` is what the user wrote; ``file_text`` the content where that named a file. Raises UserError."""
    if file_text is not None:
        from axoc.facts.inventory_file import parse_inventory_file

        return parse_inventory_file(file_text, file_name or text)
    if text.lower().endswith(_FILE_SUFFIXES):
        raise UserError(
            Diagnostic(message=f"there is no inventory file {text}", fix=f"check the path, or give {_FORM}")
        )
    problems: list[Diagnostic] = []
    clusters = [_item(item.strip(), problems) for item in text.split(",")]
    if problems:
        raise UserError(*problems)
    return tuple(cluster for cluster in clusters if cluster is not None)


def detect() -> str:
    """An inventory file for the machine this runs on, as text. Raises UserError for a GPU the catalog lacks."""
    from axoc.facts.detect import inventory_of_this_machine

    return inventory_of_this_machine()


def unknown_accelerator(name: str, **place: int | str | None) -> Diagnostic:
    """``place``: file, line and column, where there is one."""
    names = accelerator_names()
    close = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    near = close or [n for n in names if n.startswith(name.lower())][:1]
    return Diagnostic(
        message=f"inventory: {name!r} is not an accelerator that axoc knows",
        expected=", ".join(names),
        fix=f"did you mean {near[0]}?" if near else "take the nearest of these and correct it in an inventory file",
        **place,  # type: ignore[arg-type]
    )


def _item(item: str, problems: list[Diagnostic]) -> ClusterFacts | None:
    match = _ITEM.fullmatch(item)
    per_node, nodes = _counts(match)
    if match is None or per_node < 1 or nodes < 1:
        problems.append(Diagnostic(message=f"inventory: cannot read {item[:60]!r}", expected=_FORM))
        return None
    entry = find_accelerator(match["name"])
    if entry is None:
        problems.append(unknown_accelerator(match["name"]))
        return None
    return typical_cluster(entry, per_node, nodes)


def _counts(match: re.Match[str] | None) -> tuple[int, int]:
    if match is None:
        return 0, 0
    return int(match["per_node"] or 1), int(match["nodes"] or 1)
