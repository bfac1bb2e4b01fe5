"""Each objective trains on pairs, and its figure on them moves the right way; the reference is what was planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from axoc_runtime.errors import RuntimeFailure
from e2e.conftest import Launch, parameters
from e2e.test_strategies import of_strategy
from pairs import pairs
from runtime.jobs import LORA, make_job

pytestmark = pytest.mark.slow

PREFERENCE = {
    "beta": 0.1, "label_smoothing": 0.0, "simpo_gamma": 1.0, "desirable_weight": 1.0, "undesirable_weight": 1.0,
    "reference": "model",
}  # fmt: skip
BETAS = {"simpo": 2.0}
WITHOUT = {"orpo", "simpo", "reward", "grpo"}
ADAPTER = 4 * 4 * 1024
"""Rank x layers x the widths in and out of the linear layers of a block."""
ALONE = {
    "distributed__strategy": "single", "distributed__world_size": 1, "distributed__processes_per_node": 1,
    "distributed__data_parallel": 1,
}  # fmt: skip


def preferring(work: Path, objective: str, tiny: Path, **changes: Any) -> dict[str, Any]:
    """Eight pairs, learned by heart: the same rows are trained on and measured."""
    (work / "preferences.json").write_text(json.dumps(pairs(8)))
    reference = "none" if objective in WITHOUT else "model"
    preference = PREFERENCE | {"reference": reference, "beta": BETAS.get(objective, 0.1)}
    trained = parameters(tiny) - (103 * 64 if objective == "reward" else 0)  # a head of one output
    return {
        **ALONE, "dataset__path": "preferences.json", "dataset__max_seq_length": 256, "dataset__validation_split": 0.0,
        "training__objective": objective, "training__preference": None if objective == "reward" else preference,
        "training__micro_batch_size": 4, "training__gradient_accumulation_steps": 1, "training__global_batch_size": 4,
        "training__max_steps": 12, "training__save_steps": 12, "training__eval_steps": None,
        "expect__trainable_parameters": trained, **changes,
    }  # fmt: skip


def train(runtime: Launch, job: dict[str, Any], *commands: str) -> str:
    told = ""
    for command in commands or ("prepare", "train"):
        done = runtime(command, **job)
        assert done.returncode == 0, done.stderr[-3000:]
        told += done.stdout
    return told


def logged(work: Path, key: str) -> list[float]:
    lines = [json.loads(line) for line in (work / "out" / "metrics.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line and "loss" in line]


FIGURES = {
    "dpo": "rewards/margins",
    "ipo": "rewards/margins",
    "orpo": "log_odds_chosen",
    "simpo": "rewards/margins",
    "kto": "rewards/margins",
    "reward": "margin",
}


@pytest.mark.parametrize("objective", FIGURES)
def test_its_figure_on_what_it_learns_rises(work: Path, tiny: Path, runtime: Launch, objective: str) -> None:
    train(runtime, preferring(work, objective, tiny))
    figure = logged(work, FIGURES[objective])
    assert len(figure) == 12
    assert sum(figure[-3:]) / 3 > sum(figure[:3]) / 3 + 1e-3, figure
    metrics = json.loads((work / "out" / "metrics.json").read_text())
    assert metrics["asserted"]["reference"] == ("none" if objective in WITHOUT else "model")
    assert metrics["batch_fill"] <= 1.0


def test_the_reward_of_what_it_samples_rises(work: Path, tiny: Path, runtime: Launch) -> None:
    """GRPO: a random model ends its answers late; brevity is what it can learn in a few steps."""
    grpo = {
        "generations": 8, "max_completion_length": 12, "temperature": 1.0, "beta": 0.0, "reference": "none",
        "rewards": [{"name": "brevity", "weight": 1.0}],
    }  # fmt: skip
    job = preferring(work, "grpo", tiny) | {
        "dataset__path": "data.jsonl", "dataset__max_seq_length": 64, "training__preference": None, "training__grpo": grpo,
        "training__micro_batch_size": 16, "training__global_batch_size": 16, "training__max_steps": 24,
        "training__save_steps": 24, "training__learning_rate": 3e-3,
    }  # fmt: skip
    train(runtime, job)
    reward = logged(work, "reward")
    assert len(reward) == 24
    assert sum(reward[-6:]) > sum(reward[:6]) + 0.3, reward


def test_an_adapter_on_two_ranks_needs_no_second_model_and_is_merged(work: Path, tiny: Path, runtime: Launch) -> None:
    preference = PREFERENCE | {"reference": "adapter"}
    job = preferring(work, "dpo", tiny) | {
        "distributed__strategy": "ddp", "distributed__world_size": 2, "distributed__processes_per_node": 2,
        "distributed__data_parallel": 2, "training__micro_batch_size": 2, "adapter": LORA,
        "training__preference": preference, "expect__trainable_parameters": ADAPTER, "dataset__validation_split": 0.25,
        "training__eval_steps": 6, "training__eval_rows": 2,
        "training__gradient_checkpointing": "selective", "training__checkpointed_layers": 2,
    }  # fmt: skip
    told = train(runtime, job, "prepare", "train", "finish")
    assert "held-out reward margin before 0" in told
    metrics = json.loads((work / "out" / "metrics.json").read_text())
    assert metrics["headline"] == "reward_margin" and metrics["reward_margin_before"] == 0
    assert {"reward_accuracy_after", "eval_loss_after"} <= set(metrics) and "perplexity_after" not in metrics
    assert metrics["asserted"]["reference"] == "adapter"
    assert sorted(p.name for p in (work / "out" / "adapter").iterdir() if p.is_dir()) == []  # no copy named ref
    assert (work / "out" / "final" / "model.safetensors").is_file()


def test_a_sharded_policy_has_a_sharded_reference(work: Path, tiny: Path, runtime: Launch) -> None:
    whole = preferring(work, "dpo", tiny) | {
        "training__micro_batch_size": 2,
        "training__max_steps": 2,
        "training__save_steps": 2,
    }
    sharded = of_strategy(work, "fsdp", tiny)
    train(runtime, {k: v for k, v in whole.items() if k not in ALONE} | sharded)
    metrics = json.loads((work / "out" / "metrics.json").read_text())
    assert metrics["asserted"]["reference blocks that are FSDP units"] == 4


@pytest.mark.parametrize(("planned", "found"), [("model", None), ("adapter", object()), ("precomputed", object())])
def test_a_reference_that_is_not_what_was_planned_stops_the_run(tmp_path: Path, planned: str, found: Any) -> None:
    from axoc_runtime.objectives.trl_trainer import TrlTrainer

    preference = PREFERENCE | {"reference": planned}
    trainer: Any = TrlTrainer.__new__(TrlTrainer)
    trainer.job = make_job(tmp_path, training__objective="dpo", training__preference=preference)
    trainer.ref_model = found
    with pytest.raises(RuntimeFailure, match="reference model: planned") as caught:
        trainer.asserted()
    assert caught.value.exit_code == 16
