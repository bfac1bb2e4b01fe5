"""Each kind of adapter: it begins as it should, learns, and computes the same once it is merged into the exact weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from axoc_runtime.checkpoint.save import save_trained
from axoc_runtime.job import Job
from axoc_runtime.models import load
from axoc_runtime.models.merge import merge
from exports.tiny import run_of

from .jobs import LORA, make_job

pytestmark = pytest.mark.slow
IDS = torch.arange(20, 60)[None]
FOUR = {"double_quantization": True, "options": {}}
PATTERN = r".*layers\.1\.self_attn\.(q|v)_proj"
WAYS: dict[str, tuple[dict[str, Any], str | None]] = {
    "lora": ({}, None),
    "rslora": ({"use_rslora": True}, None),
    "dora": ({"use_dora": True}, None),
    "gaussian": ({"init": "gaussian"}, None),
    "pissa": ({"init": "pissa"}, None),
    "pissa in rounds": ({"init": "pissa", "init_iterations": 4}, None),
    "rslora of pissa": ({"init": "pissa", "use_rslora": True}, None),
    "pattern": ({"targets": PATTERN}, None),
    "head too": ({"modules_to_save": ["lm_head"], "targets": ["q_proj"]}, None),
    "nf4": ({}, "nf4"),
    "fp4": ({}, "fp4"),
    "int8": ({}, "int8"),
    "dora beside nf4": ({"use_dora": True}, "nf4"),
    "loftq nf4": ({"init": "loftq"}, "nf4"),
    "loftq fp4": ({"init": "loftq"}, "fp4"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of("llama", tmp_path_factory.mktemp("base")) / "final"


def job_of(folder: Path, base: Path, way: str, **more: Any) -> Job:
    changes, method = WAYS[way]
    quantization = None if method is None else FOUR | {"method": method}
    return make_job(folder, model__id=str(base), model__quantization=quantization, adapter=LORA | changes | more)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=IDS).logits.float()
    return found


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def exact(folder: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    return logits(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())


def trained(model: Any) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(6):
        loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return losses


def saved(job: Job, model: Any) -> None:
    """As the trainer saves it."""
    from axoc_runtime.models.tokenizer import load_tokenizer

    accelerator = SimpleNamespace(unwrap_model=lambda m: m, wait_for_everyone=lambda: None)
    save_trained(job, SimpleNamespace(accelerator=accelerator, model_wrapped=model), load_tokenizer(job))


@pytest.mark.parametrize("way", WAYS)
def test_what_is_merged_is_what_was_trained(base: Path, tmp_path: Path, way: str) -> None:
    job, (_, method) = job_of(tmp_path, base, way), WAYS[way]
    model = load.load_trainable(job, torch.device("cpu"))
    begins = apart(logits(model.eval()), exact(base))
    assert begins < 1e-4 if method is None else 0.01 < begins < 0.6  # what storage lost
    losses = trained(model.train())
    assert losses[-1] < losses[0] - 0.1
    saved(job, model)
    merge(job)  # raises where it computes another thing than the adapter beside the exact weights
    kept = exact(job.output / "final")
    assert apart(kept, logits(model.eval())) < (1e-3 if method is None else 0.6)
    assert apart(kept, exact(base)) > 0.02


def test_a_pattern_adapts_what_it_names_and_a_module_to_save_is_trained_whole(base: Path, tmp_path: Path) -> None:
    model = load.load_trainable(job_of(tmp_path, base, "pattern"), torch.device("cpu"))
    found = {
        n.split(".lora_")[0].removeprefix("base_model.model.") for n, _ in model.named_parameters() if "lora_" in n
    }
    assert found == {f"model.layers.1.self_attn.{name}_proj" for name in "qv"}
    model = load.load_trainable(job_of(tmp_path, base, "head too"), torch.device("cpu"))
    whole = [n for n, p in model.named_parameters() if p.requires_grad and "lora_" not in n]
    assert len(whole) == 1 and "lm_head" in whole[0]


@pytest.mark.parametrize("method", ["nf4", "fp4"])
def test_loftq_begins_nearer_to_the_exact_weights_than_storage_does(base: Path, tmp_path: Path, method: str) -> None:
    wanted, found = exact(base), []
    for way in (method, f"loftq {method}"):
        job = job_of(tmp_path, base, way, rank=32, alpha=64)
        found.append(apart(logits(load.load_trainable(job, torch.device("cpu")).eval()), wanted))
    assert found[1] < 0.75 * found[0]


def test_lora_plus_gives_the_second_matrices_a_rate_of_their_own(base: Path, tmp_path: Path) -> None:
    from axoc_runtime.optimizers.loraplus import two_rates

    job = make_job(tmp_path, model__id=str(base), adapter=LORA | {"loraplus_lr_ratio": 8.0})
    model = load.load_trainable(job, torch.device("cpu"))
    kind = (torch.optim.AdamW, {"lr": 1e-3})
    trainer = SimpleNamespace(model=model, args=None, get_optimizer_cls_and_kwargs=lambda *_: kind)
    names = {id(p): n for n, p in model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in two_rates(job, trainer).param_groups for p in group["params"]}
    assert rates and {n for n, p in model.named_parameters() if p.requires_grad} == rates.keys()
    assert all(rate == pytest.approx(8e-3 if "lora_B" in name else 1e-3) for name, rate in rates.items())
