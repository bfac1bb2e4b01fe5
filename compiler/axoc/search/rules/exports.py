"""What cannot be exported, said before anything is trained: after it would be late (unsloth issues 3504, 4534, 6808)."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from axoc.facts.exports import AskedFormat, asked
from axoc.ir.facts import ModelFacts
from axoc.search.rules.base import Context, Rule
from axoc.search.rules.versions import Versions
from axoc.search.space import Combination
from axoc.units import GIB

RUNTIME: Final = (Versions(library="axoc-runtime", first="0.1"),)
WITHOUT_WINDOW: Final = ("mistral", "mixtral")
"""Families that llama.cpp computes as Llama."""
HEADS: Final = ("safetensors", "pytorch")
"""Formats that hold a reward model's head as well."""


def _asked(context: Context) -> tuple[AskedFormat, ...]:
    wanted = context.request.export
    return asked(wanted.formats, wanted.quantization)


def architecture(context: Context, _: Combination) -> str | None:
    model = context.scenario.model
    reasons: dict[str, list[str]] = defaultdict(list)
    for format_ in _asked(context):
        if reason := format_.why_not(model.family) or _by_shape(format_, model):
            reasons[reason].append(format_.written)
    told = [
        f"export to {', '.join(names)} cannot be made of {model.family}: {reason}" for reason, names in reasons.items()
    ]
    return "; ".join(told) or None


def _by_shape(format_: AskedFormat, model: ModelFacts) -> str | None:
    """What a consumer computes of other models of the family, and not of this one."""
    window = model.sliding_window
    if format_.name != "gguf" or model.family not in WITHOUT_WINDOW or not model.sliding_window_layers:
        return None
    if window is None or window >= model.max_position_embeddings:
        return None
    return f"llama.cpp computes it without its sliding window of {window:,} tokens"


def size(context: Context, _: Combination) -> str | None:
    total = context.scenario.sizes.total
    for format_ in _asked(context):
        limit = format_.facts.largest_bytes
        if limit is not None and 4.0 * total >= limit:
            holds = f"one file holds {limit / GIB:.0f} GiB"
            return f"export to {format_.name}: {holds}, and the model takes {4.0 * total / GIB:.1f} GiB in fp32"
    return None


def reward(context: Context, _: Combination) -> str | None:
    wrong = [a.written for a in _asked(context) if a.name not in HEADS]
    if context.request.training.objective == "reward" and wrong:
        return f"export to {', '.join(wrong)}: a reward model has no vocabulary to predict, which is what it serves"
    return None


RULES: Final = (
    Rule(
        id="export-architecture",
        check=architecture,
        fix="take the format out of export.formats; safetensors, pytorch and vllm hold every architecture",
        link="https://github.com/unslothai/unsloth/issues/3504",
        versions=RUNTIME,
    ),
    Rule(
        id="export-size",
        check=size,
        fix="take ort out of export.formats; onnx keeps its weights beside the graph",
        link="https://onnxruntime.ai/docs/performance/model-optimizations/ort-format-models.html",
    ),
    Rule(
        id="export-reward",
        check=reward,
        fix="set export.formats: [safetensors]",
        link="https://huggingface.co/docs/transformers/v5.17.0/main_classes/output",
    ),
)
