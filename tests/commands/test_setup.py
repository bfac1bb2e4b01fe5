"""init, doctor, completion, help: what a person meets first, in a terminal and in a pipe."""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import stat
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
from axoc.cli import main
from axoc.facts import detect
from axoc.review.doctor import Asked, findings, unreachable
from axoc.search.rules.versions import PINS
from axoc.spec.init import Answers, scalar, starter_spec
from axoc.spec.load import load_spec
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

AXOC = str(Path(sys.executable).parent / "axoc")


@pytest.fixture(autouse=True)
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "smi", lambda: None)


# --- init


@pytest.mark.parametrize("adapter", ["lora", "qlora", "none"])
def test_flags_make_a_spec_that_plans(tmp_path: Path, adapter: str) -> None:
    spec = tmp_path / "new.yaml"
    command = [
        "init",
        str(spec),
        "--model",
        "meta-llama/Llama-3.1-8B",
        "--adapter",
        adapter,
        "--max-seq-length",
        "1024",
    ]
    done = CliRunner().invoke(main, [*command, "--inventory", "h100-sxm-80gb:8", "--data", "rows.jsonl"])
    assert done.exit_code == 0, done.output
    request = load_spec(spec.read_bytes(), "new.yaml")
    assert request.model.id == "meta-llama/Llama-3.1-8B" and request.datasets[0].path == "rows.jsonl"
    assert (request.adapter is None) == (adapter == "none") and (request.model.quantization is not None) == (
        adapter == "qlora"
    )
    assert request.max_seq_length == 1024 and request.inventory == "h100-sxm-80gb:8"
    assert CliRunner().invoke(main, ["plan", str(spec), "--dry-run"]).exit_code == 0
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 1 and "not overwritten" in again.output


@settings(max_examples=150)
@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=30))
def test_answers_are_data_whatever_they_hold(text: str) -> None:
    read = load_spec(starter_spec(Answers(model="a/b", data=text)).encode(), "x.yaml") if text.strip() == text else None
    assert read is None or read.datasets[0].path == text


@pytest.mark.parametrize(
    "text", ["yes", "null", "1.0", "1e5", "2024-01-01", "a: b", "# x", "", "-", "0x1F", "a/b #c", "~"]
)
def test_what_yaml_would_read_more_into_is_quoted(text: str) -> None:
    import yaml

    assert yaml.safe_load(scalar(text)) == text


def test_the_machines_gpus_are_the_inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "smi", lambda: "NVIDIA H100 80GB HBM3, 81559, 0\n" * 4)
    spec = tmp_path / "spec.yaml"
    assert CliRunner().invoke(main, ["init", str(spec), "--yes"]).exit_code == 0
    assert load_spec(spec.read_bytes(), "spec.yaml").inventory == "h100-sxm-80gb:4"


def on_terminal(command: list[str], answers: str, folder: Path, **environment: str) -> str:
    """What a program shows on a terminal of its own, with keys typed ahead."""
    ours, theirs = pty.openpty()
    everything = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | environment
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=everything)
    os.close(theirs)
    os.write(ours, answers.encode())
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # the other end is closed
        pass
    assert process.wait(60) == 0, shown.decode()
    return shown.decode()


def test_on_a_terminal_it_asks_and_asks_again_for_hardware_it_does_not_know(tmp_path: Path) -> None:
    answers = "Qwen/Qwen3-8B\n\nqlora\n512\nh900:8\nl4-24gb:2\n"
    shown = on_terminal([AXOC, "init"], answers, tmp_path)
    assert "Model" in shown and "h900" in shown and "Written" in shown
    request = load_spec((tmp_path / "spec.yaml").read_bytes(), "spec.yaml")
    assert request.model.id == "Qwen/Qwen3-8B" and request.datasets[0].path == "data/train.jsonl"
    assert request.max_seq_length == 512 and request.inventory == "l4-24gb:2"


# --- doctor


def fake_python(folder: Path, versions: dict[str, str | None], python: tuple[int, ...] = (3, 12, 1)) -> str:
    """A program that answers as a Python with these packages would."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\necho '{json.dumps({'python': python, 'versions': versions})}'\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def told(bundle: Path | None = None, python: str = sys.executable) -> dict[str, Any]:
    return {f.what: f for f in findings(Asked(bundle=bundle, python=python, offline=True))}


def test_versions_are_held_against_the_matrix(tmp_path: Path) -> None:
    right: dict[str, str | None] = {n: v[0] for n, v in PINS.items()}
    assert all(told(python=fake_python(tmp_path, right))[n].state == "ok" for n in PINS)
    wrong = right | {"torch": "2.11.0+cu130", "transformers": "4.57.0", "peft": None, "bitsandbytes": None}
    found = told(python=fake_python(tmp_path, wrong, (3, 9, 2)))
    assert found["torch"].state == "ok" and found["bitsandbytes"].state == "note"
    for name, word in (("transformers", "4.57.0"), ("peft", "not installed"), ("Python", "3.9.2")):
        assert found[name].state == "problem" and word in found[name].found and found[name].fix
    missing = told(python=str(tmp_path / "nowhere"))
    assert missing["Python"].state == "problem" and "--python" in missing["Python"].fix


@pytest.mark.parametrize(
    ("gpus", "driver", "what", "state"),
    [
        ("NVIDIA H100 80GB HBM3, 81559, 0\n" * 8, "580.1", "bundle's GPUs", "ok"),
        ("NVIDIA H100 80GB HBM3, 81559, 0\n" * 4, "580.1", "bundle's GPUs", "problem"),
        ("NVIDIA H100 80GB HBM3, 81559, 0\n" * 8, "535.1", "driver", "problem"),
        ("Voodoo 2, 12, 0\n", "580.1", "GPUs", "problem"),
        (None, None, "GPUs", "problem"),
    ],
)
def test_gpus_and_memory_against_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: str | None, driver: str | None, what: str, state: str
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("model: meta-llama/Llama-3.1-8B\ntraining: {max_steps: 9}\ndataset: {max_seq_length: 512}\n")
    bundle = tmp_path / "bundle"
    done = CliRunner().invoke(main, ["plan", str(spec), "--inventory", "h100-sxm-80gb:8", "--out", str(bundle)])
    assert done.exit_code == 0, done.output
    monkeypatch.setattr(detect, "smi", lambda: gpus)
    monkeypatch.setattr(detect, "driver_version", lambda: driver)
    found = told(bundle)
    assert found[what].state == state and bool(found[what].fix) == (state == "problem")
    monkeypatch.setattr(detect, "host_memory_gib", lambda: 1.0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 30, 0, 1 << 20))  # type: ignore[attr-defined]
    found = told(bundle)
    assert found["host memory"].state == found["disk"].state == "problem" and found["/dev/shm"].state in ("ok", "note")


def test_the_hub_is_asked_and_any_answer_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(403)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    assert unreachable(address) is None
    server.shutdown()
    server.server_close()
    assert unreachable(address) and unreachable("file:///etc/hostname")


def test_exit_code_and_json(tmp_path: Path) -> None:
    right: dict[str, str | None] = {n: v[0] for n, v in PINS.items()}
    command = ["doctor", "--offline", "--format", "json", "--python"]
    done = CliRunner().invoke(main, [*command, fake_python(tmp_path, right)])
    said = json.loads(done.output)
    assert done.exit_code == int(said["problems"] > 0)
    done = CliRunner().invoke(main, [*command, fake_python(tmp_path, right | {"torch": None})])
    assert done.exit_code == 1 and json.loads(done.output)["problems"] == said["problems"] + 1


# --- help, completion, colour, pipes


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        found += leaves(command, (*path, name)) if isinstance(command, click.Group) else [(*path, name)]
    return found


@pytest.mark.parametrize("path", sorted(leaves(main)), ids=" ".join)
def test_every_command_says_what_it_does_with_an_example_that_parses(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, [*path, "--help"])
    assert done.exit_code == 0 and "Example" in done.output
    lines = [line.strip() for line in done.output.split("Example", 1)[1].splitlines()]
    examples = [line for line in lines if line.startswith("axoc ")]
    assert examples
    for example in (part.strip() for line in examples for part in line.split("&&")):
        words = example.split(" > ")[0].split()[1:]
        command: click.Command = main
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        with click.Context(command) as context:
            command.parse_args(context, words)  # raises UsageError where it does not parse


def test_exit_codes_stand_in_the_help() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    assert all(f"\n    {code} " in shown for code in range(6))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(shell: str, tmp_path: Path) -> None:
    script = CliRunner().invoke(main, ["completion", shell]).output
    assert "_AXOC_COMPLETE" in script
    words = {"bash": "axoc pl", "zsh": "axoc pl", "fish": "axoc pl"}[shell]
    environment = os.environ | {
        "_AXOC_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": "pl" if shell == "fish" else "1",
    }
    shown = subprocess.run([AXOC], env=environment, capture_output=True, text=True).stdout
    assert "plan" in shown and "plugins" in shown and "verify" not in shown


def test_bash_takes_the_script(tmp_path: Path) -> None:
    script = tmp_path / "axoc.bash"
    script.write_text(CliRunner().invoke(main, ["completion", "bash"]).output)
    program = f'source "{script}"; complete -p axoc'
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and "axoc" in done.stdout, done.stderr


def test_colour_on_a_terminal_only_and_not_where_no_color_is_set(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("model: Qwen/Qwen2.5-0.5B\ndataset: {max_seq_length: 512}\n")
    command = [AXOC, "plan", "spec.yaml", "--inventory", "h100-sxm-80gb", "--dry-run"]
    assert "\x1b[" in on_terminal(command, "", tmp_path)
    assert "\x1b[" not in on_terminal(command, "", tmp_path, NO_COLOR="1")
    piped = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert piped.returncode == 0 and "\x1b" not in piped.stdout
    cut = subprocess.run(
        f"{shlex.join(map(str, command))} --format json | head -c 20",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert cut.stdout.startswith("{") and cut.stderr == ""
