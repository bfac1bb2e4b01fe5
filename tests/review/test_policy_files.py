"""Clauses in the spec and in an organisation's file: each is broken by one spec and kept by another, and named by line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from axoc.cli import main
from axoc.review.policy import CLAUSES, full_name
from click.testing import CliRunner, Result

SPEC = """\
model: {id: Qwen/Qwen2.5-0.5B, revision: %(revision)s, trust_remote_code: %(trust)s, kernels: none, compile: false}
dataset: {path: data.jsonl, max_seq_length: 1024}
training: {max_steps: 100, micro_batch_size: 8, gradient_checkpointing: none}
distributed: {type: ddp}
tracking: [%(trackers)s]
"""
COMMIT = hashlib.sha1(b"a commit").hexdigest()
KEEPING = {"revision": COMMIT, "trust": "false", "trackers": "tensorboard"}
CASES = {
    "max_gpus": ("8", "4", {}),
    "max_cost_usd": ("500", "0.001", {}),
    "max_hours": ("10", "0.0001", {}),
    "allowed_images": ("['nvidia/cuda:13.*']", "[ubuntu]", {}),
    "allowed_registries": ("[docker.io/nvidia]", "[ghcr.io, docker.io/nvid]", {}),
    "allowed_licenses": ("[MIT, apache-*]", "[mit]", {}),
    "no_remote_code": ("true", "true", {"trust": "true"}),
    "no_telemetry": ("true", "true", {"trackers": "tensorboard, wandb"}),
    "required_pins": ("[model, packages]", "[model]", {"revision": "main"}),
}
"""A value that the spec keeps, one that it breaks, and what must change in the spec for it to break."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AXOC_POLICY", raising=False)
    Path("spec.yaml").write_text(SPEC % KEEPING)
    return tmp_path


def plan(*options: str) -> Result:
    return CliRunner().invoke(main, ["plan", "spec.yaml", "--inventory", "h100-sxm-80gb:8", *options])


def test_every_clause_has_a_case() -> None:
    assert set(CASES) == set(CLAUSES)


@pytest.mark.parametrize("clause", sorted(CASES))
@pytest.mark.parametrize("where", ["spec", "file"])
def test_kept_and_broken(folder: Path, clause: str, where: str) -> None:
    kept, broken, change = CASES[clause]
    for value, text, code in ((kept, SPEC % KEEPING, 0), (broken, SPEC % (KEEPING | change), 5)):
        clauses = f"policy:\n  {clause}: {value}\n"
        Path("spec.yaml").write_text(text + (clauses if where == "spec" else ""))
        Path("org.yaml").write_text("# ours\n" + clauses)
        done = plan("--dry-run", *(["--policy", "org.yaml"] if where == "file" else []))
        assert done.exit_code == code, done.output
        if code:
            place = "spec.yaml:7" if where == "spec" else "org.yaml:3"
            assert f"{place}: policy.{clause} is" in done.output and "fix:" in done.output
            assert "Traceback" not in done.output


def test_all_broken_clauses_of_all_files_at_once_and_nothing_written(folder: Path) -> None:
    Path("spec.yaml").write_text(SPEC % (KEEPING | {"trackers": "wandb"}) + "policy: {no_telemetry: true}\n")
    Path("a.yaml").write_text("policy: {max_gpus: 1}\n")
    Path("b.yaml").write_text("policy:\n  allowed_licenses: mit\n")
    done = plan("--policy", "a.yaml", "--policy", "b.yaml")
    assert done.exit_code == 5 and not Path("bundle").exists()
    for place in ("spec.yaml:6: policy.no_telemetry", "a.yaml:1: policy.max_gpus", "b.yaml:2: policy.allowed_licenses"):
        assert place in done.output


def test_the_environment_names_files_too_and_check_heeds_them(folder: Path) -> None:
    Path("a.yaml").write_text("policy: {max_gpus: 1}\n")
    Path("b.yaml").write_text("policy: {max_hours: 0.0001}\n")
    assert plan().exit_code == 0
    runner = CliRunner(env={"AXOC_POLICY": "a.yaml:b.yaml"})
    for options in ([], ["--check"], ["--dry-run"]):
        done = runner.invoke(main, ["plan", "spec.yaml", "--inventory", "h100-sxm-80gb:8", *options])
        assert done.exit_code == 5 and "max_gpus" in done.output and "max_hours" in done.output


def test_a_spec_cannot_loosen_what_the_organisation_says(folder: Path) -> None:
    Path("spec.yaml").write_text(SPEC % KEEPING + "policy: {max_gpus: 64}\n")
    Path("org.yaml").write_text("policy: {max_gpus: 4}\n")
    assert plan("--policy", "org.yaml").exit_code == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: gpt2\npolicy: {max_gpus: 4}\n", "org.yaml:1: model is no clause"),
        ("policy:\n  objective: cost\n", "org.yaml:2: policy.objective is no clause"),
        ("policy:\n  max_gpu: 4\n", "max_gpus"),
        ("policy:\n  max_cost_usd: lots\n", "org.yaml:2"),
        ("policy: [\n", "org.yaml"),
    ],
)
def test_a_file_that_is_no_policy(folder: Path, text: str, said: str) -> None:
    Path("org.yaml").write_text(text)
    done = plan("--policy", "org.yaml")
    assert done.exit_code == 1 and said in done.output and "Traceback" not in done.output


def test_a_file_that_is_not_there(folder: Path) -> None:
    done = plan("--policy", "nowhere.yaml")
    assert done.exit_code == 1 and "nowhere.yaml" in done.output


def test_data_must_be_in_the_lock_where_it_must_be_pinned(folder: Path) -> None:
    Path("org.yaml").write_text("policy: {required_pins: data}\n")
    Path("data.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}]}\n' * 50)
    assert plan("--policy", "org.yaml").exit_code == 5
    assert CliRunner().invoke(main, ["lock", "spec.yaml"]).exit_code == 0
    done = plan("--policy", "org.yaml")
    assert done.exit_code == 0, done.output


def test_a_licence_that_is_not_known_is_not_let_through(folder: Path) -> None:
    from axoc.facts.catalog import find_entry

    entry = find_entry("gpt2")
    assert entry is not None
    import json

    Path("config.json").write_text(json.dumps(entry.config))
    Path("spec.yaml").write_text(
        "model: {config: config.json}\ndataset: {max_seq_length: 512}\npolicy: {allowed_licenses: ['*']}\n"
    )
    done = plan("--dry-run")
    assert done.exit_code == 5 and "not known" in done.output


def test_names_of_images_are_completed_as_container_tools_do() -> None:
    assert full_name("python:3.11-slim") == "docker.io/library/python:3.11-slim"
    assert full_name("nvidia/cuda:13") == "docker.io/nvidia/cuda:13"
    assert full_name("ghcr.io/acme/x") == "ghcr.io/acme/x" and full_name("localhost/x") == "localhost/x"
