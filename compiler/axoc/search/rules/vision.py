"""What rows about images do not go with yet: each was not tried, or is known to fail."""

from __future__ import annotations

from typing import Final

from axoc.facts.exports import asked
from axoc.search.rules.base import Context, Rule
from axoc.search.rules.versions import Versions
from axoc.search.space import Combination

RUNTIME: Final = (Versions(library="axoc-runtime", first="0.1"),)
STRATEGIES: Final = ("single", "ddp")
WHOLE: Final = ("safetensors",)
"""Formats that hold the whole model and what reads its input."""
ROUGE: Final = "rouge"


def _sees(context: Context) -> bool:
    return context.scenario.model.vision is not None


def objective(context: Context, _: Combination) -> str | None:
    wanted = context.request.training.objective
    if _sees(context) and wanted != "sft":
        return f"objective {wanted} was not tried with images: what is learned of them are answers, by sft"
    return None


def strategy(context: Context, c: Combination) -> str | None:
    if not _sees(context) or (c.strategy in STRATEGIES and c.tensor_parallel == 1):
        return None
    how = "tensor parallelism" if c.tensor_parallel > 1 else c.strategy
    return f"{how} would shard the part that sees with the decoder, which is neither planned nor tried"


def rows(context: Context, _: Combination) -> str | None:
    """A pack's images would have to be told apart as its documents are; a stream's would be unpacked by its only reader."""
    if not _sees(context):
        return None
    if context.scenario.packing:
        return "rows with images are not packed: their images' tokens come from outside the pack"
    if any(d.streaming for d in context.request.datasets):
        return "rows with images are not streamed: one process would unpack all images"
    return None


def modules(context: Context, _: Combination) -> str | None:
    scenario = context.scenario
    if not _sees(context):
        return None
    if scenario.quantized:
        return f"{scenario.quantization} would also store the part that sees in few bits, which was not tried"
    if scenario.kernels != "none":
        return f"kernels {scenario.kernels} replace a decoder's forward that takes no pixels"
    if scenario.compile:
        return "compiled blocks were not tried with a part that sees"
    if scenario.attention != "sdpa":
        return f"attention {scenario.attention} was not tried with the part that sees"
    return None


def answers(context: Context, _: Combination) -> str | None:
    request = context.request
    if not _sees(context):
        return None
    if request.samples.prompts:
        return "samples.prompts are texts, and what this model is trained on are questions about images"
    wanted = [m for m in request.eval_metrics if m.startswith(ROUGE)]
    return f"{', '.join(wanted)} needs answers about images, which are not generated yet" if wanted else None


def export(context: Context, _: Combination) -> str | None:
    wanted = context.request.export
    wrong = [a.written for a in asked(wanted.formats, wanted.quantization) if a.written not in WHOLE]
    if _sees(context) and wrong:
        return f"export to {', '.join(wrong)} would leave out the part that sees, or was not tried with it"
    return None


RULES: Final = (
    Rule(id="vision-objective", check=objective, fix="set training.objective: sft", link=None, versions=RUNTIME),
    Rule(
        id="vision-strategy",
        check=strategy,
        fix="set distributed.type: ddp, with model_parallel_size: 1",
        link="https://github.com/deepspeedai/DeepSpeed/issues/7170",
        versions=RUNTIME,
    ),
    Rule(
        id="vision-rows",
        check=rows,
        fix="set dataset.packing: false and dataset.streaming: false",
        link=None,
        versions=RUNTIME,
    ),
    Rule(
        id="vision-modules",
        check=modules,
        fix="set model.quantization: none, kernels: none, compile: false and attention: sdpa",
        link=None,
        versions=RUNTIME,
    ),
    Rule(
        id="vision-answers",
        check=answers,
        fix="remove samples.prompts, and set eval_metrics: [perplexity]",
        link=None,
        versions=RUNTIME,
    ),
    Rule(
        id="vision-export",
        check=export,
        fix="set export.formats: [safetensors], without a quantization",
        link=None,
        versions=RUNTIME,
    ),
)
