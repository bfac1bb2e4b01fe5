"""What a run tells of itself: lines of metrics, TensorBoard, own callbacks, and the summary at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from e2e.conftest import Launch, parameters
from e2e.test_strategies import of_strategy

pytestmark = pytest.mark.slow

ALONE = {"strategy": "single", "world_size": 1, "processes_per_node": 1, "data_parallel": 1}
CALLBACK = """
from pathlib import Path
from transformers import TrainerCallback

class Mine(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        with (Path(args.output_dir) / "mine.txt").open("a") as file:
            file.write(f"{state.global_step}\\n")
"""


def install_callback(folder: Path, source: str = CALLBACK) -> None:
    """As pip leaves a package with one entry point."""
    (folder / "house_callbacks.py").write_text(source)
    information = folder / "house_callbacks-1.0.dist-info"
    information.mkdir(exist_ok=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: house-callbacks\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[axoc_runtime.callbacks]\nmine = house_callbacks:Mine\n")


def test_one_run_is_told_in_full(work: Path, tiny: Path, runtime: Launch, environment: dict[str, str]) -> None:
    install_callback(work)
    environment["PYTHONPATH"] += f":{work}"
    job: dict[str, Any] = {
        **{f"distributed__{k}": v for k, v in ALONE.items()},
        "expect__trainable_parameters": parameters(tiny), "tracking": ["tensorboard"], "training__global_batch_size": 2,
        "eval_metrics": ["perplexity", "rougeL"], "samples": {"prompts": ["1+1?"], "max_new_tokens": 8},
        "prediction__total_seconds": 10.0, "prediction__cost_usd": 1.0, "training__eval_rows": 2,
    }  # fmt: skip
    for command in ("prepare", "train", "finish"):
        done = runtime(command, **job)
        assert done.returncode == 0, done.stderr[-3000:]
    assert "predicted against measured" in done.stdout
    out = work / "out"
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if "loss" in line]
    assert [line["step"] for line in trained] == [1, 2, 3, 4]
    for name in ("learning_rate", "grad_norm", "tokens_per_second", "peak_allocated_bytes"):
        assert all(line[name] > 0 for line in trained), name
    evaluated = {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}
    sampled, again, whole = (line for line in lines if "eval_loss" in line)
    assert [line["step"] for line in (sampled, again, whole)] == [2, 4, 4]
    assert sampled["eval_tokens"] == again["eval_tokens"] < whole["eval_tokens"]
    assert tensorboard_scalars(out / "tensorboard", "eval/loss") == pytest.approx(evaluated)
    assert set(tensorboard_scalars(out / "tensorboard", "train/loss")) == {1, 2, 3, 4}
    assert len((out / "mine.txt").read_text().split()) == len(lines)
    metrics = json.loads((out / "metrics.json").read_text())
    rows = {row["metric"]: row for row in metrics["comparison"]}
    assert rows["step_seconds"]["measured"] == metrics["step_seconds"]
    assert rows["total_seconds"]["measured"] > metrics["step_seconds"] * 4
    assert metrics["eval_loss_after"] == whole["eval_loss"]
    assert rows["cost_usd"]["measured"] == pytest.approx(rows["total_seconds"]["measured"] / 10)
    assert 0 < metrics["batch_fill"] <= 1
    assert 0 <= metrics["rougeL_before"] <= 1 and 0 <= metrics["rougeL_after"] <= 1
    assert f"held-out rougeL before {metrics['rougeL_before']:.3f}" in done.stdout
    summary = (out / "metrics.md").read_text()
    assert summary.startswith("# test: predicted against measured") and "| rougeL |" in summary


def test_the_best_checkpoint_has_model_and_tokenizer(work: Path, tiny: Path, runtime: Launch) -> None:
    """Too large a learning rate makes each step worse than the first; under FSDP, whose shards transformers saves alone."""
    from transformers import AutoConfig, AutoTokenizer

    job = of_strategy(
        work, "fsdp", tiny, training__learning_rate=1.0, training__early_stopping_patience=1, training__max_steps=6,
        training__eval_steps=1, training__save_steps=1,
    )  # fmt: skip
    for command in ("prepare", "train"):
        done = runtime(command, **job)
        assert done.returncode == 0, done.stderr[-3000:]
    out = work / "out"
    metrics = json.loads((out / "metrics.json").read_text())
    best = metrics["best_step"]
    assert best < metrics["steps"] < 6
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    evaluated = {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}
    assert min(evaluated, key=lambda step: evaluated[step]) == best
    assert metrics["eval_loss_after"] == pytest.approx(evaluated[best])
    folder = out / f"checkpoint-{best}"
    assert (folder / ".axoc-complete").is_file() and list(folder.rglob("*.distcp"))
    assert AutoTokenizer.from_pretrained(folder).encode("1+1?") == AutoTokenizer.from_pretrained(tiny).encode("1+1?")
    assert AutoConfig.from_pretrained(folder).num_hidden_layers == 4


def tensorboard_scalars(folder: Path, tag: str) -> dict[int, float]:
    """Step -> value, as TensorBoard itself reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {event.step: event.value for event in events.Scalars(tag)}
