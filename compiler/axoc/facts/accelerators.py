"""The accelerator catalog: datasheet figures, what the driver reports, and the node each is typically rented in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, cast

from axoc.ir.facts import AcceleratorFacts


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """A typical node; one with fewer accelerators is taken to be a share of it."""

    accelerators: int
    host_memory_gib: float
    cpu_cores: int
    """Logical cores."""
    network_kind: str
    network_gbps: float
    """Gigabits a second, one direction, of the whole node."""
    source: str


@dataclass(frozen=True, kw_only=True)
class CatalogAccelerator:
    facts: AcceleratorFacts
    node: NodeFacts
    driver_names: tuple[str, ...]
    """What nvidia-smi calls it."""
    driver_total_mib: int | None
    """What nvidia-smi shows as total: more than a process can have, the driver keeps some."""


def accelerator_names() -> tuple[str, ...]:
    return tuple(_catalog())


def find_accelerator(name: str) -> CatalogAccelerator | None:
    """The entry of that catalog name, whatever its case."""
    values = _catalog().get(name.lower())
    return None if values is None else _parse(name.lower(), values)


def find_driver_name(driver_name: str, total_mib: int) -> str | None:
    """Catalog name for what nvidia-smi reports; the total tells variants of one name apart."""
    near = [
        (abs(values["driver_total_mib"] - total_mib), name)
        for name, values in _catalog().items()
        if driver_name in values["driver_names"]
    ]
    return min(near)[1] if near else None


def price_of(name: str) -> tuple[float | None, str]:
    """USD for one accelerator and hour, and where the figure is from; None where none is known."""
    price = _read("prices.json")["prices"].get(name)
    if price is None:
        return None, "no price known: give price_per_hour_usd in an inventory file"
    return price["usd_per_accelerator_hour"], f"{price['source']}, {price['date']}"


def spot_price_of(name: str) -> tuple[float | None, str]:
    """The same of capacity that may be taken away; None where no public figure is known."""
    price = (_read("prices.json")["prices"].get(name) or {}).get("spot")
    if price is None:
        return None, "no spot price known: give spot_price_per_hour_usd in an inventory file"
    return price["usd_per_accelerator_hour"], f"{price['source']}, {price['date']}"


def _parse(name: str, values: dict[str, Any]) -> CatalogAccelerator:
    own = {k: v for k, v in values.items() if k not in ("node", "driver_names", "driver_total_mib")}
    own["compute_capability"] = tuple(own["compute_capability"])
    return CatalogAccelerator(
        facts=AcceleratorFacts(name=name, **own),
        node=NodeFacts(**values["node"]),
        driver_names=tuple(values["driver_names"]),
        driver_total_mib=values["driver_total_mib"],
    )


def _catalog() -> dict[str, dict[str, Any]]:
    return cast("dict[str, dict[str, Any]]", _read("accelerators.json")["accelerators"])


@cache
def _read(file_name: str) -> dict[str, Any]:
    text = files("axoc.facts").joinpath("data", file_name).read_text(encoding="utf-8")
    return cast("dict[str, Any]", json.loads(text))
