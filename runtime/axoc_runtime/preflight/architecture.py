"""An architecture that axoc has no family of: what of the plan it cannot do is said before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Final

from axoc_runtime.errors import EXIT_INPUTS
from axoc_runtime.job import Job
from axoc_runtime.models.source import source_arguments
from axoc_runtime.preflight.finding import WARNING, Finding

CLOSE: Final = 0.05
"""Share of the parameters by which a plan may be off and nothing is said."""
TRAINED: Final = "plan a decoder that continues text"


def check_architecture(job: Job) -> Iterator[Finding]:
    """Builds it without weights, which takes seconds whatever its size. Nothing is said of a configuration that cannot be
    read: the load says why."""
    from axoc_runtime.models.architecture import unknown

    if not unknown(job):
        return
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(**source_arguments(job))
    except (OSError, ValueError, KeyError) as error:
        if "does not recognize this architecture" in str(error):
            fix = "set model.trust_remote_code where its repository brings the code, or name another model"
            yield Finding(EXIT_INPUTS, f"transformers does not know the architecture of {job.model.id}", fix)
        return
    told = [] if job.model.trust_remote_code else list(of_config(job, config))
    yield from told or _of_model(job, config)


def of_config(job: Job, config: Any) -> Iterator[Finding]:
    """What its configuration alone tells: that it is no decoder."""
    from axoc_runtime.models.load import model_class

    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        told = f"{kind} has an encoder in front of its decoder, and models that are a decoder alone are trained here"
        yield Finding(EXIT_INPUTS, told, TRAINED)
    elif job.training.objective != "reward" and _encodes(model_class(job), config):
        told = (
            f"{kind} is an encoder (is_decoder: false): each token sees those after it, which it would have to predict"
        )
        yield Finding(
            EXIT_INPUTS, told, f"{TRAINED}, or set is_decoder: true in its config.json if it was trained as one"
        )
    elif type(config) not in model_class(job)._model_mapping:
        told = f"transformers has no {model_class(job).__name__.removeprefix('Auto')} of {kind}"
        yield Finding(EXIT_INPUTS, told, TRAINED)


def _encodes(kind: Any, config: Any) -> bool:
    """``is_decoder: false``, where the modelling code asks for it: some configurations have it and mean nothing by it."""
    if config.to_dict().get("is_decoder") is not False or type(config) not in kind._model_mapping:
        return False
    code = inspect.getsource(inspect.getmodule(kind._model_mapping[type(config)]))  # type: ignore[arg-type]
    return "config.is_decoder:" in code or "if self.is_decoder" in code


def _of_model(job: Job, config: Any) -> Iterator[Finding]:
    import torch

    from axoc_runtime.models.load import model_class

    try:
        with torch.device("meta"):
            model = model_class(job).from_config(config, trust_remote_code=job.model.trust_remote_code)
    except ImportError as error:
        told = f"{config.model_type} needs a package that is not installed: {str(error).strip().splitlines()[0]}"
        yield Finding(EXIT_INPUTS, told, "install it and launch with --no-install")
        return
    except Exception:  # some compute while they are built, which no weights allow: the load will show
        return
    yield from _impossible(job, model)
    yield from _size(job, model)


def _impossible(job: Job, model: Any) -> Iterator[Finding]:
    name = type(model).__name__
    if job.training.gradient_checkpointing != "none" and not model.supports_gradient_checkpointing:
        fix = "set training.gradient_checkpointing: none and plan again"
        yield Finding(EXIT_INPUTS, f"{name} cannot recompute its blocks", fix)
    if any(d.packing for d in job.datasets) and (model._is_stateful or not model._supports_attention_backend):
        told = f"{name} carries a state from token to token, or takes no other attention than its own: packed rows would run together"
        yield Finding(EXIT_INPUTS, told, "set dataset.packing: false and plan again")
    if job.distributed.strategy == "fsdp" and _shared(job, model):
        told = f"blocks of {name} share weights, which FSDP2 cannot shard block by block"
        yield Finding(EXIT_INPUTS, told, "set distributed.type: zero3, or ddp, and plan again")


def _shared(job: Job, model: Any) -> bool:
    """Whether a weight is in two blocks, e.g. Zamba's attention."""
    from axoc_runtime.models.load import decoder_blocks

    found = [id(p) for block in decoder_blocks(job, model) for p in block.parameters()]
    return len(found) > len(set(found))


def _size(job: Job, model: Any) -> Iterator[Finding]:
    real, planned = sum(p.numel() for p in model.parameters()), job.expect.parameters
    if abs(real / planned - 1) > CLOSE:
        told = f"{type(model).__name__} has {real:,} parameters, and was planned as a Llama-like model with {planned:,}"
        fix = "expect memory and time to be off as much, or more; a model family makes them exact: docs/plugins.md"
        yield Finding(WARNING, told, fix)
