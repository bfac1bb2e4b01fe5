"""What goes wrong with an export, as a user meets it: the command's exit code, what it says, and what it leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.conftest import make_tiny
from exports.tiny import run_of

pytestmark = pytest.mark.slow
MISSING = "import sys\nsys.modules['{}'] = None\n"
"""Of sitecustomize.py: an environment that lacks a package."""
BROKEN = "raise ImportError('libgomp.so.1: cannot open shared object file')\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of("llama", tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "axoc-output"))


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AXOC_", "OMP_"))}
    return kept | {"OMP_NUM_THREADS": "1", **more}


def path_with(*folders: Path) -> str:
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])


def axoc(work: Path, *arguments: str, **more: str) -> Any:
    command = [sys.executable, "-m", "axoc", *arguments]
    done = subprocess.run(command, cwd=work, env=environment(**more), capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def left(run: Path) -> list[str]:
    """Hidden ones too."""
    return sorted(p.name for p in (run / "exports").glob("*")) if (run / "exports").exists() else []


def test_an_architecture_that_has_no_such_format(tmp_path: Path) -> None:
    run_of("gpt_neox", tmp_path / "axoc-output")
    done = axoc(tmp_path, "export", "axoc-output", "--formats", "safetensors,gguf")
    assert done.returncode == 1
    assert "no GGUF layout is known for GPTNeoXForCausalLM" in done.stderr and "take gguf out" in done.stderr
    assert left(tmp_path / "axoc-output") == []


def test_a_consumer_that_is_not_installed_and_one_that_cannot_be_imported(run: Path, tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without/sitecustomize.py").write_text(MISSING.format("xllamacpp"))
    done = axoc(
        tmp_path, "export", run.name, "--formats", "safetensors,gguf", PYTHONPATH=path_with(tmp_path / "without")
    )
    assert done.returncode == 11
    assert "gguf needs xllamacpp" in done.stderr and "pip install 'axoc-runtime[export]'" in done.stderr
    assert left(run) == []
    (tmp_path / "broken/xllamacpp").mkdir(parents=True)
    (tmp_path / "broken/xllamacpp/__init__.py").write_text(BROKEN)
    done = axoc(
        tmp_path, "export", run.name, "--formats", "safetensors,gguf", PYTHONPATH=path_with(tmp_path / "broken")
    )
    assert done.returncode == 18
    assert "libgomp.so.1" in done.stderr and "install its packages again" in done.stderr
    assert "axoc export axoc-output --formats gguf" in done.stderr
    assert left(run) == ["exports.json", "safetensors"]


def test_a_tokenizer_with_more_tokens_than_the_embedding(run: Path, tmp_path: Path) -> None:
    path = run / "final/tokenizer.json"
    value = json.loads(path.read_text())
    more = [value["added_tokens"][0] | {"id": 1000 + i, "content": f"<m{i}>", "special": False} for i in range(100)]
    path.write_text(json.dumps(value | {"added_tokens": [*value["added_tokens"], *more]}))
    done = axoc(tmp_path, "export", run.name, "--formats", "safetensors,gguf,onnx")
    assert done.returncode == 1
    assert (
        "gives the token 1,099" in done.stderr
        and "put the tokenizer there that the model was trained with" in done.stderr
    )
    assert left(run) == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def filled(disk: Path, process: Any, when: Callable[[], bool]) -> tuple[str, str]:
    """What a process prints on whose disk others write until nothing is free, from then on."""
    deadline = time.monotonic() + 240
    while not when():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)
    with (disk / "others").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
    out, err = process.communicate(timeout=240)
    assert "Traceback" not in out + err
    return out, err


def test_a_disk_that_others_fill_while_it_is_exported(disk: Path, finished: Path) -> None:
    run = Path(shutil.copytree(finished, disk / "axoc-output"))
    command = [sys.executable, "-m", "axoc", "export", run.name, "--formats", "safetensors,onnx"]
    process = subprocess.Popen(command, cwd=disk, env=environment(), stdout=-1, stderr=-1, text=True)
    _, told = filled(disk, process, lambda: bool(list(run.glob("exports/.onnx.new-*"))))
    assert process.returncode == 18
    assert "the disk is full" in told and "free some" in told and "axoc export axoc-output --formats onnx" in told
    assert left(run) == ["exports.json", "safetensors"]
    (disk / "others").unlink()
    again = axoc(disk, "export", run.name, "--formats", "onnx")
    assert again.returncode == 0 and left(run) == ["exports.json", "onnx", "safetensors"]


def planned(work: Path, tokenizer: Any, *formats: str) -> Any:
    make_tiny(work / "model", tokenizer)
    rows = [{"question": f"{a}+{b}?", "answer": str(a + b)} for a in range(10) for b in range(4)]
    (work / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {
        "model": {"id": "model", "dtype": "float32"}, "adapter": "none", "inventory": "cpu",
        "dataset": {"path": "data.jsonl", "max_seq_length": 64, "validation_split": 0.1},
        "training": {"max_steps": 2, "global_batch_size": 2}, "export": {"formats": list(formats)},
        "distributed": {"gpu_count": 1, "mixed_precision": "no"},
    }  # fmt: skip
    (work / "spec.yaml").write_text(json.dumps(spec))
    done = axoc(work, "plan", "spec.yaml")
    assert done.returncode == 0, done.stderr
    command = [str(work / "bundle/launch.sh"), "--no-install", "--python", sys.executable]
    return lambda **more: subprocess.Popen(command, cwd=work, env=environment(**more), stdout=-1, stderr=-1, text=True)


def test_a_launch_says_before_it_trains_that_a_consumer_is_missing(tmp_path: Path, tokenizer: Any) -> None:
    launch = planned(tmp_path, tokenizer, "safetensors", "gguf")
    (tmp_path / "without").mkdir()
    (tmp_path / "without/sitecustomize.py").write_text(MISSING.format("xllamacpp"))
    process = launch(PYTHONPATH=path_with(tmp_path / "without"))
    out, told = process.communicate(timeout=240)
    assert process.returncode == 11, out + told
    assert (
        "not installed: xllamacpp" in told
        and "requirements.lock" in told
        and "failed at step 'preflight' (exit 11)" in told
    )
    assert "training" not in out and not (tmp_path / "axoc-output/final").exists()


def test_a_launch_whose_disk_fills_up_keeps_the_model_and_what_was_exported(disk: Path, tokenizer: Any) -> None:
    process = planned(disk, tokenizer, "safetensors", "onnx")()
    run = disk / "axoc-output"
    out, told = filled(disk, process, lambda: bool(list(run.glob("exports/.onnx.new-*"))))
    assert process.returncode == 18, out + told
    assert "the disk is full" in told and "failed at step 'finish' (exit 18)" in told
    assert "axoc export axoc-output --formats onnx" in told
    assert left(run) == ["exports.json", "safetensors"] and (run / "final/model.safetensors").is_file()
    (disk / "others").unlink()
    assert axoc(disk, "export", run.name, "--formats", "onnx").returncode == 0
