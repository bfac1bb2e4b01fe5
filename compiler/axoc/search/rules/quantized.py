"""Rules of quantized base weights."""

from __future__ import annotations

from typing import Final

from axoc.search.rules.base import Context, Rule
from axoc.search.rules.versions import Versions
from axoc.search.space import Combination

IN_RUNTIME: Final = ("none", "nf4", "fp4", "int8")


def method(context: Context, _: Combination) -> str | None:
    wanted = context.scenario.quantization
    return None if wanted in IN_RUNTIME else f"training over {wanted} weights is not in this runtime yet"


def sharded(context: Context, c: Combination) -> str | None:
    """No saving is credited unmeasured, and none is to be had here:

    - the runtime loads quantized weights with a ``device_map`` (models/load.py), which ZeRO-3 does not take (pitfall 7),
      and transformers leaves quantized modules out of ``zero.Init`` (modeling_utils.py: ``needs_zero3_init``), so each
      rank holds them whole (pitfall 8);
    - FSDP shards 4-bit weights only where they are stored in the dtype of the others (pitfall 3), and not int8 (4);
    - with preference objectives FSDP2 lacks both (pitfall 5), whatever the storage.
    """
    if context.scenario.quantized and c.strategy in ("zero3", "fsdp"):
        return f"a {context.scenario.quantization} base under {c.strategy} saves nothing that was measured, and breaks at load or save"
    return None


def on_cpu(context: Context, _: Combination) -> str | None:
    if context.scenario.quantization == "int8" and context.scenario.on_cpu:
        return "int8 training on a CPU has no kernels in bitsandbytes that are tested here"
    return None


def trained(context: Context, _: Combination) -> str | None:
    if context.scenario.is_full and context.scenario.quantization != "none":
        return f"{context.scenario.quantization} weights cannot be trained: only an adapter beside them can"
    return None


RULES: Final = (
    Rule(
        id="quantized-needs-adapter",
        check=trained,
        fix="set adapter: lora, or model.quantization: none",
        link="https://huggingface.co/docs/transformers/quantization/bitsandbytes",
    ),
    Rule(
        id="quantization-method",
        check=method,
        fix="set model.quantization: nf4",
        link=None,
        versions=(Versions(library="axoc-runtime", first="0.1"),),
    ),
    Rule(
        id="quantized-base-sharded",
        check=sharded,
        fix="set distributed.type: ddp or zero2, or model.quantization: none",
        link="https://github.com/huggingface/transformers/issues/24395",
        versions=(Versions(library="bitsandbytes"), Versions(library="axoc-runtime", first="0.1")),
    ),
    Rule(
        id="int8-on-cpu",
        check=on_cpu,
        fix="set model.quantization: nf4 or none",
        link=None,
        versions=(Versions(library="bitsandbytes"),),
    ),
)
