"""Checks between fields: each names the field to change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from axoc.facts.exports import FORMATS, NONE, asked, plugin_formats
from axoc.facts.targets import TARGETS, TargetFacts, plugin_targets
from axoc.spec.dataset import Dataset
from axoc.spec.hints import key_fix, nearest
from axoc.spec.preferences import BETAS, REFERENCED, SMOOTHED
from axoc.spec.problems import Path, Problem
from axoc.spec.spec import Spec
from axoc.spec.training import Training

NO_MODEL: Final = "no model is named"


def check(spec: Spec) -> Iterator[Problem]:
    """Everything wrong between fields that are right by themselves."""
    for one in CHECKS:
        yield from one(spec)


def _names_a_model(spec: Spec) -> Iterator[Problem]:
    if spec.model.id is None and spec.model.config is None:
        fix = "write model: a hub id or a folder, e.g. model: Qwen/Qwen2.5-0.5B"
        expected = "model.id, or model.config (the path of a config.json)"
        yield Problem(path=("model", "id"), message=NO_MODEL, expected=expected, fix=fix, whole=True)


def _length(spec: Spec) -> Iterator[Problem]:
    if spec.training.epochs is not None and spec.training.max_steps is not None:
        message = "and training.epochs are both set, and each says how long to train"
        yield Problem(path=("training", "max_steps"), message=message, expected="one of them", fix="remove one")


def _batches(spec: Spec) -> Iterator[Problem]:
    """Data parallelism is what remains: global = micro x accumulation x data parallel."""
    t = spec.training
    parts = {"micro_batch_size": t.micro_batch_size, "gradient_accumulation_steps": t.gradient_accumulation_steps}
    given = {name: value for name, value in parts.items() if isinstance(value, int)}
    unit = 1
    for value in given.values():
        unit *= value
    if isinstance(t.global_batch_size, int) and t.global_batch_size % unit:
        product = " x ".join(f"{name} {value}" for name, value in given.items())
        nearest = max(1, round(t.global_batch_size / unit)) * unit
        yield Problem(
            path=("training", "global_batch_size"),
            message=f"is {t.global_batch_size}, which {product} does not divide",
            expected="micro_batch_size x gradient_accumulation_steps x data-parallel devices",
            fix=f"set global_batch_size: {nearest}, or leave one of them on auto",
        )


def _recomputed(spec: Spec) -> Iterator[Problem]:
    t = spec.training
    if t.checkpoint_above_parameters is not None and t.gradient_checkpointing in ("none", "full"):
        message = f"is set, and gradient_checkpointing: {t.gradient_checkpointing} leaves no block to choose"
        fix = "set gradient_checkpointing: auto, or remove this line"
        path: Path = ("training", "checkpoint_above_parameters")
        yield Problem(path=path, message=message, expected="gradient_checkpointing: auto or selective", fix=fix)


def _rounded(spec: Spec) -> Iterator[Problem]:
    """Stochastic rounding is the optimizer's, and only of bfloat16 weights that are trained themselves."""
    if spec.training.bf16_update != "stochastic":
        return
    path: Path = ("training", "bf16_update")
    wanted = spec.training.optimizer
    if spec.adapter is not None:
        message = "is stochastic, and adapters are trained in float32"
        yield Problem(path=path, message=message, expected="adapter: none", fix="remove it")
    elif spec.model.dtype != "bfloat16":
        message = f"is stochastic, and model.dtype is {spec.model.dtype}"
        yield Problem(path=path, message=message, expected="model.dtype: bfloat16", fix="remove it")
    if wanted not in ("adamw_torch", "adamw_torch_fused"):
        message = f"is stochastic, and {wanted} rounds to the nearest"
        fix = "set optimizer: adamw_torch_fused"
        yield Problem(path=path, message=message, expected="optimizer: adamw_torch_fused or adamw_torch", fix=fix)


def _streaming(spec: Spec) -> Iterator[Problem]:
    for index, dataset in enumerate(spec.dataset):
        if dataset.streaming and spec.training.max_steps is None:
            message = "is true, and a stream has no length to count epochs of"
            fix = "set training.max_steps (and no epochs), or streaming: false"
            yield Problem(path=("dataset", index, "streaming"), message=message, expected="training.max_steps", fix=fix)
        if dataset.streaming and dataset.validation_split > 0:
            message = f"is {dataset.validation_split:g}, and rows of a stream cannot be held out"
            fix = "set validation_split: 0, or streaming: false"
            yield Problem(path=("dataset", index, "validation_split"), message=message, expected="0", fix=fix)


def _row_policies(spec: Spec) -> Iterator[Problem]:
    """Pairs and prompts have an order of their own: cut on the right, and trained on in their answers."""
    if spec.training.objective in ("sft", "pretrain"):
        return
    for index, dataset in enumerate(spec.dataset):
        for name, default in (("truncation", "right"), ("train_on", "assistant")):
            if getattr(dataset, name) != default:
                yield Problem(
                    path=("dataset", index, name),
                    message=f"is {getattr(dataset, name)}, and the objective {spec.training.objective} reads only {default}",
                    expected=default,
                    fix="remove this line",
                )


def _early_stopping(spec: Spec) -> Iterator[Problem]:
    t = spec.training
    if t.early_stopping_patience is None:
        return
    if not any(_holds_out(dataset) for dataset in spec.dataset):
        message = f"is {t.early_stopping_patience}, but no rows are held out to evaluate on"
        fix = "set dataset.validation_split: 0.1, or remove early_stopping_patience"
        yield Problem(path=("training", "early_stopping_patience"), message=message, fix=fix)
    if isinstance(t.eval_steps, int) and isinstance(t.save_steps, int) and t.save_steps % t.eval_steps:
        yield _unaligned(t, t.save_steps, t.eval_steps)


def _unaligned(t: Training, save_steps: int, eval_steps: int) -> Problem:
    nearest = max(1, round(save_steps / eval_steps)) * eval_steps
    return Problem(
        path=("training", "save_steps"),
        message=f"is {save_steps}, but the best of the evaluations every {eval_steps} steps must have been saved",
        expected="with early stopping, a multiple of eval_steps",
        fix=f"set save_steps: {nearest}",
    )


def _holds_out(dataset: Dataset) -> bool:
    return dataset.validation_split > 0


def _devices(spec: Spec) -> Iterator[Problem]:
    count, tensor = spec.distributed.gpu_count, spec.distributed.model_parallel_size
    if count is not None and isinstance(tensor, int) and count % tensor:
        message = f"is {tensor}, which does not divide gpu_count {count}"
        fix = "set a divisor of gpu_count, or auto"
        yield Problem(path=("distributed", "model_parallel_size"), message=message, fix=fix)


_OF_PREFERENCE: Final = {
    "beta": tuple(BETAS),
    "label_smoothing": SMOOTHED,
    "simpo_gamma": ("simpo",),
    "desirable_weight": ("kto",),
    "undesirable_weight": ("kto",),
    "precompute_reference": REFERENCED,
}
"""Fields of training.preference, and the objectives that have them."""


def _objective(spec: Spec) -> Iterator[Problem]:
    """What is written for an objective that does not read it would be left out in silence."""
    t = spec.training
    read = {("preference", name): _OF_PREFERENCE[name] for name in sorted(t.preference.model_fields_set)}
    read |= {("grpo", name): ("grpo",) for name in sorted(t.grpo.model_fields_set)}
    for path, objectives in read.items():
        if t.objective not in objectives:
            yield Problem(
                path=("training", *path),
                message=f"is set, and the objective {t.objective} does not read it",
                expected=f"training.objective: {' or '.join(objectives)}",
                fix="remove this line",
            )


def _mismatched(spec: Spec) -> Iterator[Problem]:
    """KTO pairs each prompt of a micro-batch with another row's answer."""
    if spec.training.objective == "kto" and spec.training.micro_batch_size == 1:
        message = "is 1, and kto compares rows of a micro-batch with one another"
        yield Problem(
            path=("training", "micro_batch_size"), message=message, expected="2 or more", fix="set 2, or auto"
        )


def _generations(spec: Spec) -> Iterator[Problem]:
    """Completions of one prompt are compared with one another, so a step takes whole groups of them."""
    t, length = spec.training, max(d.max_seq_length for d in spec.dataset)
    if t.objective != "grpo":
        return
    if t.grpo.max_completion_length >= length:
        message = f"is {t.grpo.max_completion_length}, and with max_seq_length {length} nothing is left for the prompt"
        fix = f"set dataset.max_seq_length: {2 * t.grpo.max_completion_length}"
        yield Problem(path=("training", "grpo", "max_completion_length"), message=message, fix=fix)
    if isinstance(t.global_batch_size, int) and t.global_batch_size % t.grpo.generations:
        wanted = -(-t.global_batch_size // t.grpo.generations) * t.grpo.generations
        message = f"is {t.global_batch_size} completions, which {t.grpo.generations} generations do not divide"
        fix = f"set global_batch_size: {wanted}"
        yield Problem(path=("training", "global_batch_size"), message=message, fix=fix)


def _exports(spec: Spec) -> Iterator[Problem]:
    """Formats that installed plugins or the spec's own may bring are left to the runtime, which knows them."""
    names = (*FORMATS, *sorted(plugin_formats()))
    for index, written in enumerate(spec.export.formats):
        name, colon, quantization = written.partition(":")
        path: Path = ("export", "formats", index)
        if name not in names and not spec.plugins:
            close = nearest(name, names)
            fix = f"did you mean {close}?" if close else "take one of these, or name the plugin's folder under plugins"
            yield Problem(path=path, message=f"is {written!r}, no export format", expected=", ".join(names), fix=fix)
        elif colon and name in FORMATS and quantization not in FORMATS[name].quantizations:
            has = ", ".join(FORMATS[name].quantizations) or "none"
            message = f"is {written!r}, and {name} has no quantization {quantization!r}"
            yield Problem(path=path, message=message, expected=has, fix=f"write {name}, or {name}: one of these")
    yield from _export_quantization(spec)


def _export_quantization(spec: Spec) -> Iterator[Problem]:
    wanted = spec.export.quantization
    if wanted == NONE or any(a.quantization == wanted for a in asked(spec.export.formats, wanted)):
        return
    having = [name for name, facts in FORMATS.items() if wanted in facts.quantizations]
    message = f"is {wanted!r}, which no format of export.formats has"
    expected = f"one of {', '.join(having)} among the formats" if having else "a quantization that a format has"
    yield Problem(path=("export", "quantization"), message=message, expected=expected, fix="set quantization: none")


def _target(spec: Spec) -> Iterator[Problem]:
    """What is written for a target that does not read it would be left out in silence. A plugin reads what it will."""
    t = spec.target
    facts = TARGETS.get(t.type)
    if facts is None or t.type in plugin_targets():
        return
    for name in sorted(t.model_fields_set - {"type", *facts.settings}):
        readers = " or ".join(kind for kind, other in TARGETS.items() if name in other.settings)
        message = f"is set, and the target {t.type} does not read it"
        yield Problem(
            path=("target", name), message=message, expected=f"target.type: {readers}", fix="remove this line"
        )
    yield from _target_options(t.options, facts)
    if t.spot and spec.upload_to is None:
        message = "is true, and nothing is left of a machine that is taken away"
        fix = "set upload_to: s3://bucket/prefix"
        yield Problem(path=("target", "spot"), message=message, expected="upload_to, to go on from", fix=fix)


def _target_options(options: dict[str, Any], facts: TargetFacts) -> Iterator[Problem]:
    for name in sorted(options):
        path: Path = ("target", "options", name)
        if name in facts.decided:
            message = "is decided by the plan, or by a setting of its own"
            yield Problem(path=path, message=message, expected=facts.options, fix="remove this line")
        elif facts.options and not facts.option_name.fullmatch(name):
            yield Problem(path=path, message="is no option's name", expected=facts.options, fix="remove this line")


CHECKS: Final = (
    _target,
    _names_a_model,
    _length,
    _batches,
    _recomputed,
    _rounded,
    _streaming,
    _row_policies,
    _early_stopping,
    _devices,
    _objective,
    _mismatched,
    _generations,
    _exports,
)


def touches(problem: Problem, wrong: set[Path]) -> bool:
    """Whether the problem may only be there because what is wrong was left out of the check."""
    if problem.message == NO_MODEL:
        return any(p[0] == "model" or key_fix(str(p[0]), ("model",), ()).count("model") for p in wrong if p)
    return any(problem.path[: len(p)] == p for p in wrong)
