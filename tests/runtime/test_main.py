"""The entry point: exit codes, one line a failure, the trace in a file, and the code left for launch.sh."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from axoc_runtime import __main__ as entry
from axoc_runtime.errors import RuntimeFailure

from runtime.jobs import write_job


@pytest.fixture
def job(tmp_path: Path) -> str:
    return str(write_job(tmp_path))


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def dispatch(command: str, job: Any, *, options: set[str]) -> None:
        raise error

    monkeypatch.setattr(entry, "dispatch", dispatch)


@pytest.mark.parametrize("arguments", [[], ["train"], ["fly", "job.json"], ["train", "job.json", "--fast"]])
def test_usage(arguments: list[str]) -> None:
    assert entry.main(arguments) == 2


def test_a_job_that_cannot_be_read_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["train", str(tmp_path / "none.json")]) == 1
    assert "cannot be read as a job" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeFailure("x", 16, "y"), 16),
        (KeyboardInterrupt(), 130),
        (MemoryError(), 15),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 15),
        (RuntimeError("shapes do not match"), 14),
        (SystemExit(3), 14),
        (SystemExit(0), 0),
    ],
)
def test_failures_of_training(
    job: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException, code: int
) -> None:
    fail_with(monkeypatch, error)
    monkeypatch.setenv("RANK", "1")
    assert entry.main(["train", job]) == code
    record = tmp_path / "out" / ".exit-code"
    assert (record.read_text() if record.exists() else "0\n") == f"{code}\n"


def test_the_first_rank_to_fail_decides(job: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANK", "0")
    for error in (MemoryError(), RuntimeError("connection reset by peer")):
        fail_with(monkeypatch, error)
        entry.main(["train", job])
    assert (tmp_path / "out" / ".exit-code").read_text() == "15\n"


def test_no_traceback_reaches_a_user(
    job: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, ValueError("one\ntwo"))
    assert entry.main(["prepare", job]) == 13
    shown = capsys.readouterr().err
    log = tmp_path / "out" / "logs" / "prepare-rank0.log"
    assert "Traceback" not in shown and str(log) in shown and "ValueError: one" in shown
    assert "Traceback" in log.read_text()
    assert not (tmp_path / "out" / ".exit-code").exists(), "only torchrun hides exit codes"


ONE_SPEAKS = """
import os, sys, time
from axoc_runtime import __main__ as entry
from axoc_runtime.errors import RuntimeFailure

def dispatch(command, job, *, options):
    if os.environ["RANK"] == {slow!r}:
        time.sleep({seconds})
    if os.environ["RANK"] != {well!r}:
        raise RuntimeFailure("wrong input of rank " + os.environ["RANK"], 1)

entry.dispatch = dispatch
sys.exit(entry.main(sys.argv[1:]))
"""


LAUNCHES = """
import os, sys
from axoc_runtime import torchrun

for folder in sys.argv[1:]:
    if not os.fork():
        os.dup2(os.open(f"{folder}/said", os.O_WRONLY | os.O_CREAT), 2)
        script = [f"{folder}/entry.py", "train", f"{folder}/job.json"]
        sys.argv = ["torchrun", "--standalone", "--nproc_per_node", "2", *script]
        os._exit(torchrun.run())
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""
"""All at once, by torchruns that are forked of one import."""
CASES = {"first rank late": ("0", "", "0"), "first rank early": ("1", "", "0"), "first rank well": ("1", "0", "1")}
"""Case -> the rank that is slow, the one that finds nothing wrong, and the one that speaks."""


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launched")
    for case, (slow, well, _) in CASES.items():
        (folder / case).mkdir()
        (folder / case / "entry.py").write_text(ONE_SPEAKS.format(slow=slow, well=well, seconds=1.5))
        write_job(folder / case)
    command = [sys.executable, "-c", LAUNCHES, *(str(folder / case) for case in CASES)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_of_ranks_that_found_the_same_one_speaks(launched: Path, case: str) -> None:
    speaks = CASES[case][2]
    printed = (launched / case / "said").read_text()
    said = [line for line in printed.splitlines() if "wrong input" in line]
    assert said == [f"axoc: rank {speaks}: wrong input of rank {speaks}"], printed
    assert (launched / case / "out" / ".exit-code").read_text() == "1\n"


def test_a_process_that_is_done_is_not_ended_by_what_the_interpreter_frees(job: str) -> None:
    """Exit functions of libraries run, trackers' among them; then nothing that a library's thread could trip over."""
    program = f"""
import atexit, ctypes, runpy, sys
import axoc_runtime.job as module
read = module.read_job
module.read_job = lambda path: atexit.register(print, "told at exit") and read(path)
ctypes.pythonapi.Py_AtExit(ctypes.CDLL(None).abort)
sys.argv = ["axoc_runtime", "fetch", {str(Path(job).with_name("none.json"))!r}]
runpy.run_module("axoc_runtime", run_name="__main__", alter_sys=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "told at exit\n")
    assert "cannot be read as a job" in done.stderr
