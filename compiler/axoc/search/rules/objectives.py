"""What the objectives beyond imitation do not go with."""

from __future__ import annotations

from typing import Final

from axoc.search.rules.base import Context, Rule
from axoc.search.rules.versions import Versions
from axoc.search.space import Combination

TRL: Final = (Versions(library="trl"),)
SOURCE: Final = "https://github.com/huggingface/trl/blob/v1.16.0/trl"


def _plain(context: Context) -> bool:
    return context.scenario.objective.loss == "cross_entropy"


def packing(context: Context, _: Combination) -> str | None:
    if context.scenario.packing and not _plain(context):
        return f"rows of {_named(context)} are held against one another, and packed rows have no borders to do it at"
    return None


def kernels(context: Context, _: Combination) -> str | None:
    if context.scenario.kernels != "none" and not _plain(context):
        return f"{_named(context)} makes its own loss: Liger's would replace the forward that it patches"
    return None


def tensor_parallel(context: Context, c: Combination) -> str | None:
    if c.tensor_parallel > 1 and not _plain(context):
        return f"{_named(context)} reads the output matrix whole, and tensor parallelism splits it"
    return None


def head(context: Context, _: Combination) -> str | None:
    """dpo_trainer.py raises at start: the log-probabilities are made with lm_head.weight itself."""
    adapter = context.request.adapter
    if adapter is None or context.scenario.objective.loss != "log_probabilities":
        return None
    if not context.scenario.sizes.saved_head:
        return None
    return f"a head beside the adapter is never trained by {_named(context)}"


def precomputed(context: Context, c: Combination) -> str | None:
    if context.scenario.objective.reference == "precomputed" and c.strategy == "fsdp":
        return (
            "FSDP shards the policy only when training begins: a second model would be loaded to compute the reference"
        )
    return None


def offload(context: Context, c: Combination) -> str | None:
    if c.offload == "optimizer+parameters" and context.scenario.objective.passes:
        return f"the reference of {_named(context)} was not tried with parameters on the host"
    return None


def sampling(context: Context, c: Combination) -> str | None:
    """trl/trainer/grpo_trainer.py gathers all of ZeRO-3's weights to sample, and FSDP2's for every token."""
    if context.scenario.objective.generated is not None and c.strategy in ("fsdp", "zero3"):
        return f"{c.strategy} would gather the whole model to sample answers, which is neither planned nor tried"
    return None


def metrics(context: Context, _: Combination) -> str | None:
    """The default is perplexity, and is not asked for by anybody."""
    if _plain(context) or "eval_metrics" not in context.request.explicit:
        return None
    wanted = ", ".join(context.request.eval_metrics)
    return f"{wanted} is measured on rows with one right answer; {_named(context)} reports its own figures"


def samples(context: Context, _: Combination) -> str | None:
    if context.scenario.objective.loss == "score" and context.request.samples.prompts:
        return "a reward model scores answers, and gives none"
    return None


def _named(context: Context) -> str:
    return f"objective {context.request.training.objective}"


RULES: Final = (
    Rule(
        id="preference-packing",
        check=packing,
        fix="set dataset.packing: false",
        link="https://github.com/axolotl-ai-cloud/axolotl/issues/449",
    ),
    Rule(
        id="preference-kernels",
        check=kernels,
        fix="set model.kernels: none",
        link=f"{SOURCE}/trainer/dpo_trainer.py",
        versions=TRL,
    ),
    Rule(
        id="preference-tensor-parallel",
        check=tensor_parallel,
        fix="set distributed.model_parallel_size: 1",
        link=f"{SOURCE}/kernels/chunked_logprob.py",
        versions=TRL,
    ),
    Rule(
        id="preference-head-adapter",
        check=head,
        fix="remove lm_head (and an embedding that is tied to it) from adapter.modules_to_save",
        link=f"{SOURCE}/trainer/dpo_trainer.py",
        versions=TRL,
    ),
    Rule(
        id="precomputed-reference-fsdp",
        check=precomputed,
        fix="set training.preference.precompute_reference: false, or distributed.type: zero3",
        link=f"{SOURCE}/trainer/dpo_trainer.py",
        versions=TRL,
    ),
    Rule(id="reference-offload", check=offload, fix="set distributed.offload: optimizer", link=None, versions=TRL),
    Rule(
        id="sampling-sharded",
        check=sampling,
        fix="set distributed.type: ddp or zero2",
        link=f"{SOURCE}/trainer/grpo_trainer.py",
        versions=TRL,
    ),
    Rule(id="preference-metrics", check=metrics, fix="remove eval_metrics", link=None),
    Rule(id="reward-samples", check=samples, fix="remove samples.prompts", link=None),
)
