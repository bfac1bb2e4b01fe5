"""What the runtime of this version does not run. Each goes when the runtime learns it."""

from __future__ import annotations

from typing import Final

from axoc.search.rules.base import Context, Rule
from axoc.search.rules.versions import Versions
from axoc.search.space import Combination

RUNTIME: Final = (Versions(library="axoc-runtime", first="0.1"),)
TRAINER_OPTIMIZERS: Final = ("adamw_torch", "adamw_torch_fused", "adamw_bnb_8bit", "adafactor", "sgd")
STREAMED: Final = ("sft", "pretrain")
"""Objectives on the runtime's own trainer; TRL's takes whole datasets."""
UNTRAINED: Final = {
    "stepwise": "are steps that are each right or wrong, and no objective learns from them",
}
"""Formats that are read and checked only. Those that ``auto`` finds are refused before training by what reads the rows."""
TENSOR_PARALLEL_FAMILIES: Final = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gpt_neox")
"""base_model_tp_plan of transformers 5.17: tests/facts/test_against_transformers.py holds it against them."""


def packing(context: Context, _: Combination) -> str | None:
    """A mask of the whole pack would be made in every forward, and all of it computed."""
    scenario = context.scenario
    if scenario.packing and not scenario.by_document:
        return f"packing needs an attention backend that is told where documents end, and {scenario.attention} is not"
    return None


def optimizer(context: Context, _: Combination) -> str | None:
    """The Trainer makes the optimizer, and knows it by name (transformers/training_args.py: ``OptimizerNames``)."""
    wanted = context.scenario.optimizer
    return None if wanted in TRAINER_OPTIMIZERS else f"optimizer {wanted} is not one that transformers' Trainer makes"


def tensor_parallel(context: Context, c: Combination) -> str | None:
    """runtime/axoc_runtime/strategies/tensor.py trains plans of whole columns and rows."""
    family = context.scenario.model.family
    if c.tensor_parallel > 1 and family not in TENSOR_PARALLEL_FAMILIES:
        return f"transformers has no plan that splits every matrix of {family}'s blocks by columns or rows"
    return None


def tensor_parallel_kernels(context: Context, c: Combination) -> str | None:
    """A fused loss reads the head's weight itself, and Liger puts its norms in the place of the layers' own forward."""
    wanted = context.scenario.kernels
    if c.tensor_parallel > 1 and wanted != "none":
        return f"kernels {wanted} read weights whole, and tensor parallelism splits them"
    return None


def compiled(context: Context, c: Combination) -> str | None:
    """runtime/axoc_runtime/kernels/compiled.py compiles what a block's own forward does."""
    if context.scenario.compile and c.tensor_parallel > 1:
        return "blocks whose weights are split by tensor parallelism were not tried compiled"
    if context.scenario.compile and c.strategy == "zero3":
        return "ZeRO-3 gathers weights in hooks of every layer inside a block, and each would break its graph"
    return None


def positions(context: Context, _: Combination) -> str | None:
    scenario = context.scenario
    known = scenario.model.max_position_embeddings
    if scenario.model.learned_positions and scenario.seq_length > known:
        return f"rows of {scenario.seq_length:,} tokens have no positions beyond the {known:,} the model has learned"
    return None


def streaming(context: Context, _: Combination) -> str | None:
    objective = context.request.training.objective
    if any(d.streaming for d in context.request.datasets) and objective not in STREAMED:
        return f"the trainer of {objective} needs all rows prepared before it starts: they cannot be streamed"
    return None


def untrained(context: Context, _: Combination) -> str | None:
    found = next((d.type for d in context.request.datasets if d.type in UNTRAINED), None)
    return None if found is None else f"rows of the format {found} {UNTRAINED[found]}"


RULES: Final = (
    Rule(
        id="packing-needs-varlen",
        check=packing,
        fix="set model.attention: auto, or dataset.packing: false",
        link="https://github.com/axolotl-ai-cloud/axolotl/issues/449",
        versions=RUNTIME,
    ),
    Rule(
        id="runtime-tensor-parallel",
        check=tensor_parallel,
        fix="set distributed.model_parallel_size: 1",
        link="https://huggingface.co/docs/transformers/v5.17.0/perf_infer_gpu_multi",
        versions=RUNTIME,
    ),
    Rule(
        id="tensor-parallel-kernels",
        check=tensor_parallel_kernels,
        fix="set model.kernels: none, or distributed.model_parallel_size: 1",
        link=None,
        versions=RUNTIME,
    ),
    Rule(
        id="compile-whole-blocks",
        check=compiled,
        fix="set model.compile: false, or distributed.type: fsdp with model_parallel_size: 1",
        link="https://docs.pytorch.org/tutorials/recipes/regional_compilation.html",
        versions=RUNTIME,
    ),
    Rule(
        id="learned-positions",
        check=positions,
        fix="set dataset.max_seq_length to at most the model's max_position_embeddings",
        link=None,
    ),
    Rule(
        id="runtime-optimizer",
        check=optimizer,
        fix="set training.optimizer: adamw_torch_fused",
        link="https://github.com/huggingface/transformers/blob/v5.17.0/src/transformers/training_args.py",
        versions=(Versions(library="transformers"),),
    ),
    Rule(
        id="runtime-formats",
        check=untrained,
        fix="take another dataset; axoc data check reads and checks this one",
        link=None,
        versions=RUNTIME,
    ),
    Rule(id="runtime-streaming", check=streaming, fix="set dataset.streaming: false", link=None, versions=RUNTIME),
)
