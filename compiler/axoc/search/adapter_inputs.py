"""Whether adapters cast their inputs to their own dtype: only where the cast is of any use, or changes what is computed.

PEFT casts a bfloat16 input to the adapter's float32, and autocast casts it back: exact, a copy of the input more in each
layer, and four kernels. The runtime leaves inputs as they come where nothing stands between both casts.

Dropout stands there, and does the same on either: a GPU's kernel scales in float32 and rounds once, and so does compiled code
(ATen/native/cuda/Dropout.cu). Only its mask may be drawn anew: so many random numbers at once as fit a vector of the dtype. A
CPU's scales by a factor that is rounded to bfloat16 first (ATen/native/Dropout.cpp), and there the casts stay.
"""

from __future__ import annotations

import math
from typing import Final

from axoc.ir.candidate import Candidate
from axoc.ir.facts import ClusterFacts
from axoc.ir.plan import Decision
from axoc.ir.request import AdapterRequest, PlanRequest

FIELD: Final = "adapter.casts_inputs"
UNDER_AUTOCAST: Final = ("single", "ddp")
POWER_OF_TWO: Final = 0.5
"""The mantissa of one."""


def between_the_casts(adapter: AdapterRequest | None, cluster: ClusterFacts) -> str | None:
    """What makes the cast input another one; None where both casts are for nothing."""
    if adapter is None:
        return None
    if adapter.use_dora:
        return "DoRA takes the norm of the whole weight in the dtype of the input"
    if adapter.dropout > 0 and cluster.accelerator.vendor == "cpu":
        return "a CPU's dropout rounds its factor to the dtype of the input"
    return None


def casts_inputs(adapter: AdapterRequest, chosen: Candidate, cluster: ClusterFacts) -> bool:
    """Of the job."""
    return _why(adapter, chosen, cluster) is not None


def factor_of(adapter: AdapterRequest) -> float:
    """What is multiplied with the product of both matrices."""
    return adapter.alpha / (math.sqrt(adapter.rank) if adapter.use_rslora else adapter.rank)


def scales_between(adapter: AdapterRequest | None, quantization: str) -> bool:
    """Of the job: a factor that is a power of two changes no digit, wherever it stands. Quantized layers and DoRA have PEFT's
    own order."""
    if adapter is None or adapter.use_dora or quantization != "none":
        return False
    return math.frexp(factor_of(adapter))[0] == POWER_OF_TWO


def adapter_decisions(request: PlanRequest, chosen: Candidate, cluster: ClusterFacts) -> tuple[Decision, ...]:
    if request.adapter is None:
        return ()
    why = _why(request.adapter, chosen, cluster)
    because = why or _why_not(request.adapter, chosen)
    return (
        Decision(field=FIELD, value=why is not None, because=because, source="rule:adapter-inputs"),
        _factor_decision(request.adapter, chosen.quantization),
    )


def _factor_decision(adapter: AdapterRequest, quantization: str) -> Decision:
    between, factor = scales_between(adapter, quantization), factor_of(adapter)
    because = f"the factor {factor:g} is no power of two, or the layer is quantized or DoRA's: PEFT's order is kept"
    if between:
        because = f"the factor {factor:g} changes no digit, and costs least on the {adapter.rank} numbers between the matrices"
    return Decision(field="adapter.scales_between", value=between, because=because, source="rule:adapter-scale")


def _why(adapter: AdapterRequest, chosen: Candidate, cluster: ClusterFacts) -> str | None:
    if chosen.strategy not in UNDER_AUTOCAST or chosen.mixed_precision == "no":
        return "without autocast nothing else brings an input and its adapter to one dtype"
    return between_the_casts(adapter, cluster)


def _why_not(adapter: AdapterRequest, chosen: Candidate) -> str:
    if chosen.quantization != "none":
        return "over quantized weights PEFT casts no input under autocast"
    same = "the same but for the numbers that dropout draws" if adapter.dropout > 0 else "the same to the last bit"
    return f"autocast would cast them back: {same}, with a copy of each input less"
