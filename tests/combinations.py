"""Combinations that tests execute: what a marker claims is held against what really ran.

    @pytest.mark.combination(adapter="lora", quantization="nf4", strategy="ddp", export=("gguf", "onnx"))
    @pytest.mark.combination(family="falcon", export="onnx")

The first claims a training run of a Llama-like model and the exports of what it left; a part that is left out is ``none``.
The second claims exports of a model of that family. Several values stand in a tuple; ``{name}`` is the value of the test's
parameter of that name. tools/compatibility_doc.py makes docs/compatibility.md of the claims; a test that passed without
having run what it claims fails (tests/conftest.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any, Final, NamedTuple

NONE: Final = "none"


class Run(NamedTuple):
    """A model that was trained, and exported (``none``: trained only)."""

    adapter: str
    quantization: str
    strategy: str
    export: str = NONE


class Written(NamedTuple):
    """A model of a family in a format, loaded and measured by its consumer."""

    family: str
    export: str


RAN: Final[dict[str, set[Run | Written]]] = defaultdict(set)
"""Test module -> what its tests and fixtures have run in this process."""
CURRENT: Final[list[str]] = [""]
"""The module whose test runs now."""


def ran(*what: Run | Written) -> None:
    RAN[CURRENT[0]] |= set(what)


def claimed(keywords: Mapping[str, Any], parameters: Mapping[str, Any]) -> set[Run | Written]:
    """What a marker with these keywords claims, of a test with these parameters."""
    read = {name: _values(value, parameters) for name, value in keywords.items()}
    if "family" in read:
        return {Written(*of) for of in product(read["family"], read["export"])}
    parts = (read.get(part, (NONE,)) for part in Run._fields)
    unknown = read.keys() - set(Run._fields)
    assert not unknown, f"a combination has no {', '.join(unknown)}"
    return {Run(*of) for of in product(*parts)}


def _values(value: Any, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    values: Iterable[str] = (value,) if isinstance(value, str) else value
    return tuple(v.format(**parameters) for v in values)


def of_job(job: Mapping[str, Any], export: str = NONE) -> Run:
    """Of a job.json."""
    quantization = job["model"]["quantization"]
    return Run(
        adapter=adapter_name(job["adapter"]),
        quantization=NONE if quantization is None else quantization["method"],
        strategy=job["distributed"]["strategy"],
        export=export,
    )


def adapter_name(adapter: Mapping[str, Any] | None) -> str:
    """As docs/compatibility.md calls it: by what is not the default."""
    if adapter is None:
        return NONE
    if adapter.get("init", "default") in ("pissa", "loftq"):
        return str(adapter["init"])
    flags = {"dora": "use_dora", "rslora": "use_rslora", "lora+": "loraplus_lr_ratio"}
    return next((name for name, flag in flags.items() if adapter.get(flag)), "lora")
