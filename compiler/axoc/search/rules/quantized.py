"""Rules of quantized base weights."""

from __future__ import annotations

from typing import Final

from axoc.facts.stored import COMPRESSED, why_not
from axoc.search.rules.base import Context, Rule
from axoc.search.rules.versions import Versions
from axoc.search.space import Combination

IN_RUNTIME: Final = ("none", "nf4", "fp4", "int8")


def unread(context: Context, _: Combination) -> str | None:
    stored = context.scenario.model.stored
    reason = None if stored is None else why_not(stored)
    return None if stored is None or reason is None else f"the weights are stored quantized ({stored.by}), and {reason}"


def stored_otherwise(context: Context, _: Combination) -> str | None:
    """transformers loads stored weights as they are, whatever else is asked for."""
    stored, wanted = context.scenario.model.stored, context.scenario.quantization
    if stored is None or why_not(stored) is not None or wanted == (stored.method or "none"):
        return None
    kept = (
        f"as {stored.method} by {stored.by}"
        if stored.method
        else f"by {stored.by}, and decompressed when they are loaded"
    )
    return f"the weights are stored {kept}: they cannot be loaded as {wanted}"


def decompressed(context: Context, c: Combination) -> str | None:
    """Each rank decompresses the whole model, which zero.Init and FSDP's loading were not seen to survive."""
    stored = context.scenario.model.stored
    if stored is None or stored.by != COMPRESSED:
        return None
    if context.scenario.is_full:
        return "weights stored by compressed-tensors are trained only by an adapter beside them: what is saved would not be compressed"
    if c.strategy in ("zero3", "fsdp") or c.tensor_parallel > 1:
        return f"weights stored by compressed-tensors are decompressed whole on each rank, which {c.strategy} was not seen to shard"
    return None


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
        id="stored-quantization-unread",
        check=unread,
        fix="name the model it was quantized from, and set model.quantization: nf4",
        link="https://huggingface.co/docs/transformers/quantization/gptq",
        versions=(Versions(library="transformers", first="5"),),
    ),
    Rule(
        id="stored-quantization-kept",
        check=stored_otherwise,
        fix="leave model.quantization out: the weights are loaded as they are stored",
        link="https://github.com/hiyouga/LLaMA-Factory/blob/main/src/llamafactory/model/model_utils/quantization.py",
    ),
    Rule(
        id="stored-compressed",
        check=decompressed,
        fix="set adapter: lora, and distributed.type: ddp or zero2",
        link="https://huggingface.co/docs/transformers/quantization/compressed_tensors",
        versions=(Versions(library="axoc-runtime", first="0.1"),),
    ),
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
