"""`axoc verify`: what it says, and what it says when it cannot."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from axoc.cli import main
from axoc.errors import Diagnostic, UserError
from axoc.review import tracing, verify
from click.testing import CliRunner

SPEC = """\
version: 1
name: tiny
model: {config: config.json, dtype: float32, attention: sdpa, kernels: none, compile: false}
dataset: {path: data.jsonl, max_seq_length: 64, packing: false, validation_split: 0.0}
training: {max_steps: 4, global_batch_size: 8, micro_batch_size: 2, gradient_checkpointing: none}
distributed: {type: ddp, offload: none}
"""
LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 512, "num_hidden_layers": 3, "tie_word_embeddings": False,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-6,
}  # fmt: skip


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["verify", *arguments])


def test_a_folder_is_taken_for_a_bundle(tmp_path: Path) -> None:
    done = run(str(tmp_path), "--inventory", "h100-sxm-80gb")
    assert done.exit_code == 1
    assert "no manifest of a bundle: No such file or directory\n" in done.stderr


def test_a_plan_for_a_cpu_has_nothing_to_trace(spec: Path) -> None:
    done = run(str(spec), "--inventory", "cpu")
    assert done.exit_code == 1
    assert "pass --inventory" in done.stderr


def test_a_python_without_torch_is_told_so(spec: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    bare.chmod(0o755)
    done = run(str(spec), "--inventory", "h100-sxm-80gb", "--python", str(bare))
    assert done.exit_code == 1
    assert "lacks what a trace runs" in done.stderr or "the trace failed" in done.stderr
    assert "Traceback" not in done.stderr
    missing = run(str(spec), "--inventory", "h100-sxm-80gb", "--python", str(tmp_path / "none"))
    assert missing.exit_code == 1 and "cannot be started" in missing.stderr


def test_the_traces_reason_is_passed_on() -> None:
    with pytest.raises(UserError, match=r"the trace failed: zero3 cannot be traced yet; fix: trace a plan of"):
        tracing.answer(1, "", "axoc: zero3 cannot be traced yet\n  fix: trace a plan of strategy single\n", "py")
    with pytest.raises(UserError, match="py lacks what a trace runs"):
        tracing.answer(11, "", "axoc: this Python lacks what a trace runs: No module named 'torch'\n", "py")
    assert tracing.answer(0, 'noise\n{"seconds": 1}\n', "", "py") == {"seconds": 1}


def test_a_spec_that_cannot_be_planned_ends_the_trace(tmp_path: Path) -> None:
    waiting = tmp_path / "waiting"
    waiting.write_text("#!/bin/sh\nread line\n")
    waiting.chmod(0o755)
    with pytest.raises(UserError), tracing.tracer(str(waiting)) as made:
        raise UserError(Diagnostic(message="no plan"))
    assert made.process is not None and made.process.returncode == -signal.SIGKILL
    assert not made.folder.exists()


def test_differences_are_said_in_words() -> None:
    rows = (
        verify.Row(name="forward", closed_form=98 << 30, trace=100 << 30),
        verify.Row(name="loss", closed_form=104 << 30, trace=100 << 30),
    )
    plan: Any = SimpleNamespace(request=SimpleNamespace(name="n"))
    found = verify.Verified(plan=plan, rows=rows, seconds=2.0, layers=(3, 5))
    text = verify.as_text(found)
    assert "differ by more than 3% in loss: the closed form says 4.0% more than the trace" in text
    assert "in forward" not in text
    assert verify.as_dict(found)["agrees"] is False
    agreed = verify.Verified(plan=plan, rows=rows[:1], seconds=2.0, layers=(3,))
    assert "They agree within 3% in every phase" in verify.as_text(agreed)


def test_a_plan_that_does_not_fit_by_the_trace_is_told() -> None:
    plan: Any = SimpleNamespace(request=SimpleNamespace(name="n"))
    rows = (verify.Row(name="device used", closed_form=79 << 30, trace=80 << 30),)
    found = [verify.Verified(plan=plan, rows=rows, seconds=2.0, layers=(3,), capacity_bytes=n << 30) for n in (79, 80)]
    told = "does not fit: it uses 80.00 of 79.00 GiB. Give the planner less: distributed.memory_budget_per_gpu_gb"
    assert told in verify.as_text(found[0]) and "does not fit" not in verify.as_text(found[1])
    assert [verify.as_dict(f)["fits"] for f in found] == [False, True]


@pytest.mark.slow
def test_a_spec_is_verified(spec: Path) -> None:
    done = run(str(spec), "--inventory", "h100-sxm-80gb", "--format", "json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    names = [r["name"] for r in told["rows"]]
    assert names == [
        "load",
        "forward",
        "loss",
        "backward",
        "optimizer",
        "peak allocated",
        "peak reserved",
        "device used",
    ]
    assert all(r["trace_bytes"] > 0 for r in told["rows"])
    assert told["layers_run"] == [3]
    step = told["step"]
    assert step["trace_seconds"] == pytest.approx(step["closed_form_seconds"], rel=0.05)


@pytest.fixture
def traced_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another Python traces from the same files, without the seconds in which it imports torch."""

    def run(made: tracing.Tracer, job: str, config: str, more: Any = ()) -> Any:
        from axoc_runtime.job import read_job
        from axoc_runtime.trace.__main__ import traced

        tracing.write(made.folder, [tracing._text("job.json", job), *more])
        return traced(read_job(made.folder / "job.json"), json.loads(config))

    monkeypatch.setattr(tracing.Tracer, "_start", lambda made, command: None)
    monkeypatch.setattr(tracing.Tracer, "run", run)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["zero2", "zero3", "fsdp"])
def test_a_sharded_plan_is_verified_with_its_own_configuration(spec: Path, strategy: str, traced_here: None) -> None:
    spec.write_text(SPEC.replace("type: ddp", f"type: {strategy}"))
    done = run(str(spec), "--inventory", "h100-sxm-80gb:4", "--format", "json")
    assert done.exit_code == 0, done.stderr
    told = {r["name"]: r for r in json.loads(done.stdout)["rows"]}
    assert told["device used"]["trace_bytes"] > told["peak reserved"]["trace_bytes"]
    # a bucket of DeepSpeed's default, which no plan has, would be a GB
    assert told["peak allocated"]["trace_bytes"] < 100 << 20


def test_a_steps_time_is_told_beside_the_trace_s() -> None:
    plan: Any = SimpleNamespace(request=SimpleNamespace(name="n"))
    rows = (verify.Row(name="forward", closed_form=98 << 30, trace=100 << 30),)
    step = verify.Step(closed_form=0.25, trace=0.26)
    found = verify.Verified(plan=plan, rows=rows, seconds=2.0, layers=(3, 5), step=step)
    [line] = [line for line in verify.as_text(found).splitlines() if "step" in line]
    assert line.split() == ["step,", "seconds", "0.2500", "0.2600", "-0.0100", "-3.8%"]
    assert verify.as_dict(found)["step"] == {"closed_form_seconds": 0.25, "trace_seconds": 0.26}
