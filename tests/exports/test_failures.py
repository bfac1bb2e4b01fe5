"""What goes wrong leaves no half export, and says what to do."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.exports import __main__ as command
from axoc_runtime.exports import registry, request
from axoc_runtime.exports import run as run_module
from axoc_runtime.exports.base import Consumer, Exporter
from axoc_runtime.exports.gguf import layout
from axoc_runtime.exports.report import read_report
from axoc_runtime.exports.run import export

from .tiny import run_of

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_of("llama", tmp_path)


class Failing(Exporter):
    """Writes half of what it should, and then raises."""

    name = "failing"
    error: Exception = RuntimeError("the library gave up")

    def write(self, source: Any, folder: Path, variant: str) -> tuple[str, ...]:
        (folder / "half").write_text("of it")
        raise self.error

    def consumer(self, source: Any, folder: Path, variant: str) -> Consumer:
        raise AssertionError("never reached")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Failing]]:
    made = Failing()
    monkeypatch.setattr(request, "known", lambda: [*registry.BUILTIN, "failing"])
    monkeypatch.setattr(request, "exporter", lambda name: made if name == "failing" else registry.exporter(name))
    yield Failing


def begun(run: Path, formats: str, log: Path) -> int:
    """The command in a process of its own, which has imported what this one has; what it says goes into ``log``."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.alarm(120)  # nobody waits for one that hangs
        torch.set_num_threads(1)  # those of this process are not there
        file = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        code = command.main([str(run), "--formats", formats])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def left(run: Path) -> list[str]:
    return sorted(p.name for p in (run / "exports").glob("*")) if (run / "exports").exists() else []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("the library gave up"), "RuntimeError: the library gave up"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (MemoryError(), "memory of this machine is not enough"),
    ],
)
def test_one_that_fails_leaves_nothing_and_the_others_are_made(
    run: Path, failing: type[Failing], monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    monkeypatch.setattr(failing, "error", error)
    with pytest.raises(RuntimeFailure) as caught:
        export(run, ["failing", "safetensors"])
    assert caught.value.exit_code == 18
    assert told in str(caught.value)
    assert left(run) == ["exports.json", "safetensors"]
    assert list(read_report(run)) == ["safetensors"]


def test_an_export_that_fails_does_not_take_away_an_earlier_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(run, ["gguf"])
    before = (run / "exports/gguf/model.gguf").read_bytes()
    monkeypatch.setattr(layout, "_paired", lambda tensor, heads: tensor)
    with pytest.raises(RuntimeFailure, match="gguf: its logits"):
        export(run, ["gguf"])
    assert (run / "exports/gguf/model.gguf").read_bytes() == before
    assert left(run) == ["exports.json", "gguf"]


def test_a_missing_consumer_is_said_before_anything_is_written(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = request.importlib.util.find_spec
    monkeypatch.setattr(request.importlib.util, "find_spec", lambda n: None if n == "xllamacpp" else real(n))
    with pytest.raises(RuntimeFailure) as caught:
        export(run, ["safetensors", "gguf"])
    assert caught.value.exit_code == 11
    assert "gguf needs xllamacpp" in str(caught.value) and "axoc-runtime[export]" in caught.value.render()
    assert left(run) == []


def test_too_small_a_disk_is_said_before_a_format_is_begun(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from axoc_runtime.exports.gguf.exporter import Gguf

    monkeypatch.setattr(Gguf, "bytes_needed", lambda *_: 1 << 60)
    with pytest.raises(RuntimeFailure, match="are free in"):
        export(run, ["gguf"])
    assert left(run) == ["exports.json"]


def test_an_unknown_architecture_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    run = run_of("gpt_neox", tmp_path)
    with pytest.raises(RuntimeFailure, match="no GGUF layout is known for GPTNeoXForCausalLM") as caught:
        export(run, ["safetensors", "gguf"])
    assert caught.value.exit_code == 1 and "take gguf out" in caught.value.render()
    assert left(run) == []


def with_more_tokens(run: Path, *, special: bool) -> None:
    path = run / "final/tokenizer.json"
    value = json.loads(path.read_text())
    more = [
        value["added_tokens"][0] | {"id": 1000 + i, "content": f"<more{i}>", "special": special} for i in range(100)
    ]
    path.write_text(json.dumps(value | {"added_tokens": [*value["added_tokens"], *more]}))


@pytest.mark.parametrize("format_", ["safetensors", "gguf", "onnx"])
def test_a_tokenizer_with_more_tokens_than_the_embedding_is_refused(run: Path, format_: str) -> None:
    with_more_tokens(run, special=False)
    with pytest.raises(RuntimeFailure, match="gives the token 1,099, and the model's embedding has 1,0") as caught:
        export(run, [format_])
    assert caught.value.exit_code == 1 and "trained with" in caught.value.render()
    assert left(run) == []


def test_special_tokens_that_no_text_has_need_no_row(run: Path) -> None:
    """As in Gemma 3's tokenizer, beside its text models."""
    with_more_tokens(run, special=True)
    export(run, ["gguf"])
    assert read_report(run)["gguf"]["measured"]["logits_difference"] < 0.005


def test_a_tokenizer_that_llama_cpp_splits_otherwise_is_refused(run: Path) -> None:
    path = run / "final/tokenizer.json"
    value = json.loads(path.read_text())
    value["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "[aeiou]"}, "behavior": "Isolated", "invert": False},
            value["pre_tokenizer"],
        ],
    }
    path.write_text(json.dumps(value))
    with pytest.raises(RuntimeFailure, match="splits text in no way"):
        export(run, ["gguf"])
    assert left(run) == ["exports.json"] and not read_report(run)


def test_an_unfinished_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    with pytest.raises(RuntimeFailure, match="adapter that is not merged"):
        export(tmp_path, ["safetensors"])
    assert not list((tmp_path / "exports").glob("*"))


def test_a_stopped_export_leaves_what_was_whole_and_nothing_half(run: Path) -> None:
    log = run / "log"
    child = begun(run, "safetensors,openvino", log)
    while not list((run / "exports").glob(".openvino.new-*")):
        assert os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None, log.read_text()
        time.sleep(0.02)
    os.kill(child, signal.SIGTERM)
    code, told = ended(child), log.read_text()
    assert code == 130 and "stopped" in told and "Traceback" not in told
    assert left(run) == ["exports.json", "safetensors"] and list(read_report(run)) == ["safetensors"]


def test_the_next_export_takes_away_what_a_killed_one_left(run: Path) -> None:
    for name in (".gguf.new-4711", ".work-abc"):
        (run / "exports" / name).mkdir(parents=True)
        (run / "exports" / name / "half").write_text("of it")
    export(run, ["safetensors"])
    assert left(run) == ["exports.json", "safetensors"]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system that holds a run, and has no room for an export of it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    run_of("llama", folder, num_hidden_layers=1)
    free = shutil.disk_usage(folder).free
    (folder / "others").write_bytes(b"\0" * (free - 300_000))
    yield folder
    gc.collect()
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


FORMATS = [*registry.BUILTIN.keys() - {"mlx"}, "gguf:q8_0", "vllm:fp8"]


def test_a_disk_that_is_full_in_the_middle_of_any_format(full_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC from the kernel, wherever a library meets it: no part of an export is left, and all are told alike."""
    monkeypatch.setattr(run_module, "_room", lambda *_: None)  # which would say so before anything is written
    with pytest.raises(RuntimeFailure) as caught:
        export(full_disk, sorted(FORMATS))
    told = caught.value.render()
    assert caught.value.exit_code == 18
    assert told.count("the disk is full") == len(FORMATS), told
    assert "free some" in told and "axoc export disk --formats" in told
    assert left(full_disk) == ["exports.json"] and not list((full_disk / "exports").glob(".*"))
    others = full_disk / "others"
    with others.open("ab", buffering=0) as file, suppress(OSError):
        while True:  # to the last byte: not even the report can be written
            file.write(bytes(4096))
    log = full_disk.with_name("log")
    code, told = ended(begun(full_disk, "safetensors", log)), log.read_text()
    assert code == 18 and "the disk is full" in told and "free some" in told, told
    assert "Traceback" not in told and not list((full_disk / "exports").glob(".*"))
    others.unlink()
    export(full_disk, ["gguf"])
    assert left(full_disk) == ["exports.json", "gguf"]
