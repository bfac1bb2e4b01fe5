"""The adapter beside frozen weights, by PEFT: what it adapts, what its matrices begin as, and how it is saved."""

from __future__ import annotations

import json
import math
import re
import warnings
from pathlib import Path
from typing import Any, Final

import torch

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Adapter, Job
from axoc_runtime.models.adapter_inputs import leave_inputs
from axoc_runtime.models.adapter_scale import scale_between
from axoc_runtime.models.architecture import linear_paths, own_names, unknown
from axoc_runtime.objectives.registry import objective_of

ALL_LINEAR: Final = "all-linear"
CHANGING: Final = ("pissa", "loftq")
"""Ways to begin in which the adapter is a part of the model from the first step on: PiSSA takes it out of the weights, LoftQ
makes up with it for what 4-bit storage lost."""


def add_adapter(job: Job, model: Any) -> Any:
    """Raises RuntimeFailure where PEFT finds nothing to adapt, and where the exact weights that LoftQ begins with cannot be
    read."""
    from peft import LoraConfig

    adapter = job.adapter
    assert adapter is not None
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=_targets(job, adapter, model),
        exclude_modules=beside_language(model) if job.model.vision else None,
        use_rslora=adapter.use_rslora,
        use_dora=adapter.use_dora,
        modules_to_save=_saved(job, adapter, model) or None,
        ensure_weight_tying=bool(adapter.modules_to_save) and tied(model),
        init_lora_weights=_init(adapter),
        task_type="CAUSAL_LM" if objective_of(job).answers else "SEQ_CLS",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.training.seed)  # a resumed run begins with the same matrices, and so with the same base
        made = _made(job, model, config)
    if adapter.init == "loftq":
        from axoc_runtime.models.loftq import make_up_for_storage

        make_up_for_storage(job, made)
    if not adapter.casts_inputs:
        leave_inputs(made)
    if adapter.scales_between:
        scale_between(made)
    if adapter.init in CHANGING:
        made.axoc_initial = _matrices(made)
    return made


def beside_language(model: Any) -> str:
    """A pattern of all modules that are not the language model's: names as q_proj are in both parts."""
    decoder = model.get_decoder()
    path = next(name for name, module in model.named_modules() if module is decoder)
    return rf"(?!{re.escape(path)}\.).*"


def _targets(job: Job, adapter: Adapter, model: Any) -> str | list[str]:
    """PEFT's own ``all-linear`` refuses some architectures that it has special cases for."""
    if unknown(job) and adapter.targets == ALL_LINEAR:
        return linear_paths(model)
    return adapter.targets if isinstance(adapter.targets, str) else list(adapter.targets)


def _saved(job: Job, adapter: Adapter, model: Any) -> list[str]:
    return own_names(model, adapter.modules_to_save) if unknown(job) else list(adapter.modules_to_save)


def _made(job: Job, model: Any, config: Any) -> Any:
    from peft import get_peft_model

    # PEFT has matched them, where experts are one parameter, and looks for them once more among modules
    warnings.filterwarnings(
        "ignore", message="The following (rank|alpha)_pattern keys did not match any targeted module"
    )
    try:
        return get_peft_model(model, config, autocast_adapter_dtype=not of_the_modules_dtype(job))
    except ValueError as error:
        names = sorted({path.rpartition(".")[2] for path in linear_paths(model)})
        fix = f"set adapter.targets to all-linear, or to some of {', '.join(names)}, and plan again"
        raise RuntimeFailure(f"no adapter for {type(model).__name__}: {error}", EXIT_INPUTS, fix) from error


def of_the_modules_dtype(job: Job) -> bool:
    """DeepSpeed computes in one dtype, that of the model, and keeps masters in float32. It casts adapters to it by itself,
    but not what ZeRO-3 has already partitioned (deepspeed/runtime/engine.py, _cast_module_mixed_precision)."""
    return job.distributed.strategy == "zero3" and job.model.dtype == "bfloat16" and job.model.quantization is None


def tied(model: Any) -> bool:
    """Embedding and head are one matrix. PEFT would train a copy of either alone, and the saved model would lose it."""
    return bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))


def _init(adapter: Adapter) -> bool | str:
    if adapter.init == "pissa":
        rounds = adapter.init_iterations
        return "pissa" if rounds is None else f"pissa_niter_{rounds}"
    return "gaussian" if adapter.init == "gaussian" else True


def _matrices(model: Any) -> dict[str, torch.Tensor]:
    """The pairs as they are now, under the names they are saved by."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model)
    return {name: value.detach().to("cpu", torch.float32, copy=True) for name, value in state.items() if _of_pair(name)}


def _of_pair(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


def restore_base(folder: Path, initial: dict[str, torch.Tensor]) -> None:
    """Turns a saved adapter into one of the weights as they are published: what it began with is taken off again, by a pair
    of twice the rank: B A - B0 A0 = [B, -B0] [A; A0]. As PEFT does for PiSSA (tuners/lora/model.py, subtract_mutated_init)."""
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    trained = load_file(path)
    for name, began in initial.items():
        now, first = trained[name], ".lora_A." in name
        began = began.to(now.dtype)
        trained[name] = torch.cat([now, began] if first else [now, -began], dim=0 if first else 1).contiguous()
    save_file(trained, path, metadata={"format": "pt"})
    config = folder / "adapter_config.json"
    written = json.loads(config.read_text(encoding="utf-8"))
    scale = math.sqrt(2) if written.get("use_rslora") else 2.0
    written |= {"r": 2 * written["r"], "lora_alpha": scale * written["lora_alpha"], "init_lora_weights": True}
    config.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
