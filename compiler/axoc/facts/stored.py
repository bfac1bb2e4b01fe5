"""Weights that are stored quantized already: what config.json's quantization_config says, and how they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from axoc.ir.facts import StoredWeights
from axoc.ir.request import AUTO, PlanRequest, QuantizationRequest

BITSANDBYTES: Final = "bitsandbytes"
COMPRESSED: Final = "compressed-tensors"
NO_READER: Final = "transformers reads them by a library that no lock of the bundles holds"
WHY_NOT: Final[Mapping[str, str]] = {
    "gptq": "transformers reads them by gptqmodel, which wants torch from 2.14.1; the bundles' locks hold 2.11 and 2.13",
    "awq": "transformers 5 reads them by gptqmodel, which wants torch from 2.14.1; the bundles' locks hold 2.11 and 2.13",
}
"""Way of storing -> why it is not read."""


def read_stored(config: Any) -> StoredWeights | None:
    """``config``: of config.json's ``quantization_config``; None where the weights are exact."""
    if not config:
        return None
    if not isinstance(config, Mapping):
        return StoredWeights(by="unknown", method=None)
    by = str(config.get("quant_method") or (BITSANDBYTES if _bitsandbytes(config) else "unknown")).lower()
    if by != BITSANDBYTES:
        return StoredWeights(by=by, method=None)
    if config.get("load_in_8bit") or config.get("_load_in_8bit"):
        return StoredWeights(by=by, method="int8")
    return StoredWeights(
        by=by,
        method=str(config.get("bnb_4bit_quant_type", "fp4")),
        double_quantization=bool(config.get("bnb_4bit_use_double_quant", False)),
    )


def _bitsandbytes(config: Mapping[str, Any]) -> bool:
    """Old checkpoints name no method."""
    return any(config.get(key) for key in ("load_in_4bit", "load_in_8bit", "_load_in_4bit", "_load_in_8bit"))


def why_not(stored: StoredWeights) -> str | None:
    """Why no adapter can be trained beside them; None where one can."""
    return None if stored.by in (BITSANDBYTES, COMPRESSED) else WHY_NOT.get(stored.by, NO_READER)


def as_stored(request: PlanRequest, stored: StoredWeights | None) -> PlanRequest:
    """With the quantization that the weights have, where the spec leaves it open. What it says against them is refused by
    rule."""
    open_ = request.model.quantization == AUTO or "model.quantization" not in request.explicit
    if stored is None or stored.method is None:
        exact = replace(request.model, quantization=None)
        return replace(request, model=exact) if stored is not None and open_ else request
    wanted = request.model.quantization
    if not open_ and not (isinstance(wanted, QuantizationRequest) and wanted.method == stored.method):
        return request
    found = QuantizationRequest(method=stored.method, double_quantization=stored.double_quantization)
    return replace(request, model=replace(request.model, quantization=found))


def told(stored: StoredWeights) -> str:
    """For the plan's warnings: what is loaded."""
    if stored.by == COMPRESSED:
        return (
            "the weights are stored by compressed-tensors and decompressed to model.dtype as they are loaded: they take the "
            "memory of exact weights, and the merged model is written in that type"
        )
    return f"the weights are stored as {stored.method} by {stored.by} and loaded so; the adapter is merged into them dequantized"
