"""Rows with images through the whole path: plan, bundle, launch.sh, trained, saved, gone on with."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
import yaml
from e2e.test_quickstart import finished, metrics, start
from seeing import MODELS, rows

pytestmark = pytest.mark.slow

LORA = {"type": "lora", "rank": 4, "alpha": 8}


def planned(work: Path, model: str, more: dict[str, Any]) -> None:
    MODELS[model](work / "model")
    rows(work)
    spec = {
        "model": {"id": "model", "dtype": "float32"},
        "dataset": {"path": "data.jsonl", "max_seq_length": 64, "validation_split": 0.2, "on_bad_row": "quarantine"},
        "training": {
            "max_steps": 4, "learning_rate": 1e-2, "global_batch_size": 4, "micro_batch_size": 2, "save_steps": 2,
            "gradient_checkpointing": "full", "logging_steps": 1,
        },
    }  # fmt: skip
    (work / "spec.yaml").write_text(yaml.safe_dump(spec | more))
    done = run(work, "plan", "spec.yaml", "--inventory", "cpu")
    assert done.returncode == 0, done.stderr


def run(work: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "axoc", *arguments], cwd=work, capture_output=True, text=True)


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_it_is_planned_launched_and_an_adapter_of_the_decoder_learns(tmp_path: Path) -> None:
    planned(tmp_path, "llava", {"adapter": LORA, "distributed": {"mixed_precision": "no"}})
    shown = finished(start(tmp_path))
    assert "25 rows read, 24 used" in shown
    (quarantined,) = (tmp_path / "axoc-output/quarantine.jsonl").read_text().splitlines()
    assert "images/damaged.png" in quarantined
    learned(tmp_path)
    exported(tmp_path)


def test_the_whole_decoder_learns_on_two_ranks_and_is_gone_on_with(tmp_path: Path, server: forked.Server) -> None:
    """Its weights have other names in files: a checkpoint in the middle leads to the same model."""
    planned(
        tmp_path, "gemma3", {"adapter": None, "distributed": {"type": "ddp", "gpu_count": 2, "mixed_precision": "no"}}
    )
    runtime(server, tmp_path, "prepare")
    runtime(server, tmp_path, "train")
    learned(tmp_path)
    whole, output = metrics(tmp_path), tmp_path / "axoc-output"
    (output / "metrics.json").unlink()
    shutil.rmtree(output / "checkpoint-4")
    runtime(server, tmp_path, "train", "--resume")
    assert metrics(tmp_path)["eval_loss_after"] == pytest.approx(whole["eval_loss_after"], abs=1e-5)


def runtime(server: forked.Server, work: Path, command: str, *options: str) -> None:
    """What launch.sh runs of a bundle."""
    log = work / "log"
    server.start(work / "bundle/job.json", log, *options, command=command)
    assert set(server.wait()) == {0}, log.read_text()[-3000:]


def learned(work: Path) -> None:
    """The decoder, and nothing of what sees."""
    found, final = metrics(work), work / "axoc-output/final"
    assert found["perplexity_after"] < found["perplexity_before"]
    before, after = weights(work / "model"), weights(final)
    changed = {name for name in before if not before[name].equal(after[name])}
    assert before.keys() == after.keys()
    assert changed and all("language_model" in name or "lm_head" in name for name in changed), changed
    loaded_by_its_consumer(final, work)


def loaded_by_its_consumer(folder: Path, work: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    parts = [{"type": "image", "path": str(work / "images/1.png")}, {"type": "text", "text": "Which color?"}]
    asked = processor.apply_chat_template(
        [{"role": "user", "content": parts}], tokenize=True, return_dict=True, return_tensors="pt"
    )
    AutoModelForImageTextToText.from_pretrained(folder).generate(**asked, max_new_tokens=2)


def exported(work: Path) -> None:
    """As safetensors, and as nothing that would leave out what sees."""
    done = run(work, "export", "axoc-output", "--formats", "safetensors", "--python", sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr
    loaded_by_its_consumer(work / "axoc-output/exports/safetensors", work)
    refused = run(work, "export", "axoc-output", "--formats", "pytorch", "--python", sys.executable)
    assert refused.returncode and "the part that sees" in refused.stdout + refused.stderr


def test_rows_are_checked_with_their_images(tmp_path: Path) -> None:
    MODELS["llava"](tmp_path / "model")
    rows(tmp_path)
    (tmp_path / "spec.yaml").write_text("model: model\ndataset: {path: data.jsonl, max_seq_length: 27}\n")
    done = run(tmp_path, "data", "check", "spec.yaml", "--format", "json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["findings"]["error"] == {"image": 1} and found["datasets"][0]["used"] == 24
    assert found["datasets"][0]["cut"] > 0 and not found["notes"]
