"""launch.sh, run for real against a runtime that only writes down how it was called."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from axoc.emit.bundle import build_bundle
from axoc.emit.write import write_bundle

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AXOC_", "OMP_"))}
    return kept | {
        "FAKE_LOG": str(tmp_path / "log"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path, bundle_folder: Path) -> Run:
    def call(
        *options: str, entry: Path = bundle_folder / "launch.sh", cwd: Path = tmp_path, **extra: str
    ) -> subprocess.CompletedProcess[str]:
        command = [str(entry), "--no-install", "--python", sys.executable, *options]
        return subprocess.run(command, cwd=cwd, env=environment | extra, capture_output=True, text=True, timeout=60)

    return call


def logged(environment: dict[str, str]) -> list[str]:
    log = Path(environment["FAKE_LOG"])
    return log.read_text().splitlines() if log.exists() else []


def test_steps_run_in_order_with_one_process_before_torchrun(run: Run, environment: dict[str, str]) -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    assert logged(environment) == [
        "preflight|True",
        "prepare|True",
        "torchrun|--standalone|--nnodes|1|--nproc_per_node|2",
        "train|True",
        "finish|True",
    ]
    assert done.stdout.splitlines()[-1] == "axoc: done"


@pytest.fixture
def uploading(plans: ModuleType, fake_runtime: None, tmp_path: Path) -> Path:
    """The entry of a bundle whose spec has upload_to."""
    plan = plans.cpu_ddp_lora()
    plan = replace(plan, request=replace(plan.request, upload_to="s3://bucket/runs"))
    write_bundle(build_bundle(plan, "version: 1\n", "{}\n"), tmp_path / "uploading")
    return tmp_path / "uploading" / "launch.sh"


def test_a_store_is_looked_at_before_and_sent_to_after(run: Run, environment: dict[str, str], uploading: Path) -> None:
    done = run("--resume", entry=uploading)
    assert done.returncode == 0, done.stderr
    steps = [line for line in logged(environment) if not line.startswith("torchrun")]
    assert steps == [
        "preflight|True", "fetch|--resume|True", "prepare|True", "train|--resume|True", "finish|True", "upload|True",
    ]  # fmt: skip


def test_a_store_that_is_lost_fails_no_run_that_is_trained(run: Run, uploading: Path) -> None:
    done = run(entry=uploading, FAKE_UPLOAD="17")
    assert done.returncode == 0
    assert "warning: " in done.stderr and "launch.sh --upload sends the rest" in done.stderr


def test_upload_alone(run: Run, environment: dict[str, str], uploading: Path) -> None:
    assert run("--upload", entry=uploading).returncode == 0
    assert logged(environment) == ["upload|True"]
    lost = run("--upload", entry=uploading, FAKE_UPLOAD="17")
    assert lost.returncode == 17 and "nothing is lost here" in lost.stderr.splitlines()[-1]


def test_only_the_first_node_speaks_to_the_store(run: Run, environment: dict[str, str], uploading: Path) -> None:
    assert run(entry=uploading, NODE_RANK="1").returncode == 0
    assert not [line for line in logged(environment) if line.startswith(("fetch", "upload"))]


def test_upload_of_a_spec_that_names_no_store_is_2(run: Run) -> None:
    assert run("--upload").returncode == 2


def test_twice_in_a_row(run: Run) -> None:
    assert [run().returncode, run().returncode] == [0, 0]


def test_called_through_symlinks_from_another_folder(run: Run, bundle_folder: Path, tmp_path: Path) -> None:
    second = tmp_path / "elsewhere" / "second link"
    second.parent.mkdir()
    (tmp_path / "first").symlink_to(bundle_folder / "launch.sh")
    second.symlink_to("../first")
    assert run(entry=second, cwd=Path("/")).returncode == 0


def test_relative_call_in_a_folder_that_shadows_modules(run: Run, bundle_folder: Path) -> None:
    (bundle_folder.parent / "json.py").write_text("raise SystemExit('shadowed')")
    (bundle_folder.parent / "axoc_runtime.py").write_text("raise SystemExit('shadowed')")
    done = run(entry=Path("the bundle/launch.sh"), cwd=bundle_folder.parent)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("options", "last"), [(["--preflight"], "preflight|True"), (["--prepare"], "prepare|True")])
def test_stops_after_the_step_asked_for(run: Run, environment: dict[str, str], options: list[str], last: str) -> None:
    assert run(*options).returncode == 0
    assert logged(environment)[-1] == last


def test_resume_reaches_the_workers(run: Run, environment: dict[str, str]) -> None:
    assert run("--resume").returncode == 0
    assert logged(environment)[-2:] == ["train|--resume|True", "finish|True"]


@pytest.mark.parametrize(("step", "code"), [("preflight", 12), ("prepare", 13), ("preflight", 1)])
def test_exit_codes_of_steps_are_kept(run: Run, step: str, code: int) -> None:
    done = run(**{f"FAKE_{step.upper()}": str(code)})
    assert done.returncode == code
    assert done.stderr.splitlines()[-1].startswith(f"axoc: failed at step '{step}' (exit {code}): ")


def test_training_that_leaves_no_code_is_14(run: Run) -> None:
    assert run(FAKE_TRAIN="3").returncode == 14


@pytest.mark.parametrize(("content", "code"), [("15\n", 15), ("16", 16), ("0\n", 14), ("junk; rm -rf /\n", 14)])
def test_training_code_left_in_the_output_folder_is_used(
    run: Run, bundle_folder: Path, content: str, code: int
) -> None:
    output = bundle_folder.parent / "axoc-output"
    output.mkdir()
    worker = (
        f"from pathlib import Path; Path({str(output / '.exit-code')!r}).write_text({content!r}); raise SystemExit(1)"
    )
    main = bundle_folder / "runtime/axoc_runtime/__main__.py"
    main.write_text(f"import sys\nif sys.argv[1] == 'train':\n    {worker}\n")
    assert run("--allow-altered").returncode == code


def test_a_code_of_an_earlier_run_is_not_used(run: Run, bundle_folder: Path) -> None:
    output = bundle_folder.parent / "axoc-output"
    output.mkdir()
    (output / ".exit-code").write_text("15\n")
    assert run(FAKE_TRAIN="1").returncode == 14


@pytest.mark.parametrize("options", [["--bogus"], ["--python="], ["--base-dir"], ["extra"]])
def test_usage_errors_are_2_and_run_nothing(run: Run, environment: dict[str, str], options: list[str]) -> None:
    done = run(*options)
    assert done.returncode == 2
    assert options[0].split("=")[0] in done.stderr
    assert logged(environment) == []


def test_base_dir_that_is_no_folder_is_2(run: Run) -> None:
    assert run("--base-dir", "/nowhere/at all").returncode == 2


def test_help_names_every_option(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0
    for option in [
        "--dry-run",
        "--preflight",
        "--prepare",
        "--resume",
        "--no-install",
        "--allow-altered",
        "--base-dir",
        "--python",
        "--upload",
    ]:
        assert option in done.stdout


def test_dry_run_prints_and_runs_nothing(run: Run, environment: dict[str, str]) -> None:
    done = run("--dry-run", "--resume")
    assert done.returncode == 0, done.stderr
    assert logged(environment) == []
    assert "axoc_runtime.torchrun --standalone --nnodes 1 --nproc_per_node 2 -m axoc_runtime train" in done.stdout
    assert done.stdout.count("axoc_runtime") == 5


def test_dry_run_of_an_installing_launch_makes_nothing(
    bundle_folder: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    command = [str(bundle_folder / "launch.sh"), "--dry-run", "--python", sys.executable]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"would make or reuse {tmp_path}/cache/axoc/envs/" in done.stdout
    assert not (tmp_path / "cache").exists()


def alter(path: Path) -> None:
    path.write_text(path.read_text() + "\n")


ALTERATIONS: dict[str, Callable[[Path], object]] = {
    "altered: job.json": lambda b: alter(b / "job.json"),
    "missing: spec.yaml": lambda b: (b / "spec.yaml").unlink(),
    "extra: 'runtime/evil.py'": lambda b: (b / "runtime/evil.py").write_text(""),
    "unreadable: axoc.bundle.json": lambda b: (b / "axoc.bundle.json").write_text("{"),
    "missing: launch/helper.py": lambda b: (b / "launch/helper.py").unlink(),
}


@pytest.mark.parametrize("named", ALTERATIONS)
def test_altered_bundle_is_10_and_names_the_file(
    run: Run, bundle_folder: Path, environment: dict[str, str], named: str
) -> None:
    ALTERATIONS[named](bundle_folder)
    done = run()
    assert done.returncode == 10
    assert named in done.stderr
    assert logged(environment) == []


def test_allow_altered_warns_and_runs(run: Run, bundle_folder: Path) -> None:
    alter(bundle_folder / "job.json")
    done = run("--allow-altered")
    assert done.returncode == 0
    assert "altered: job.json" in done.stderr and "warning" in done.stderr


def test_planted_bytecode_is_not_run(run: Run, bundle_folder: Path) -> None:
    cache = bundle_folder / "runtime/axoc_runtime/__pycache__"
    cache.mkdir()
    (cache / f"__main__.{sys.implementation.cache_tag}.pyc").write_bytes(b"planted")
    assert run().returncode == 0
    assert not cache.exists()


def test_a_python_that_does_not_fit_is_11(bundle_folder: Path, environment: dict[str, str], tmp_path: Path) -> None:
    command = [str(bundle_folder / "launch.sh"), "--no-install", "--python", "/bin/false"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 11


def test_several_nodes_need_their_rendezvous(
    plans: ModuleType, run: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "two nodes"
    write_bundle(build_bundle(plans.fsdp_moe_2x8h200(), "", ""), folder)
    missing = run(entry=folder / "launch.sh", MASTER_ADDR="10.0.0.1", MASTER_PORT="29500")
    assert (missing.returncode, logged(environment)) == (2, [])
    assert "NODE_RANK is not set" in missing.stderr
    given = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "NODE_RANK": "1"}
    assert run(entry=folder / "launch.sh", **given, NNODES="3").returncode == 12
    assert run(entry=folder / "launch.sh", **given).returncode == 0
    assert logged(environment)[-1] == "train|True", "only the first node finishes: it has the whole model"
    expected = "torchrun|--nnodes|2|--node_rank|1|--rdzv_backend|static|--rdzv_endpoint|10.0.0.1:29500|--rdzv_id|axoc"
    assert f"{expected}|--nproc_per_node|8" in logged(environment)


def test_hostile_values_are_never_run(plans: ModuleType, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "hostile"
    write_bundle(build_bundle(plans.hostile(plans.cpu_ddp_lora()), "", ""), folder)
    before = set(tmp_path.rglob("pwned"))
    assert run(entry=folder / "launch.sh", cwd=folder).returncode == 0
    assert set(tmp_path.rglob("pwned")) == before == set()


@pytest.mark.parametrize(("sent", "seen"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "terminated")])
def test_signals_reach_the_children(
    bundle_folder: Path, environment: dict[str, str], tmp_path: Path, sent: signal.Signals, seen: str
) -> None:
    note = tmp_path / "note"
    (bundle_folder / "runtime/axoc_runtime/__main__.py").write_text(
        "import signal, sys, time\nfrom pathlib import Path\n"
        f"note = Path({str(note)!r})\n"
        "def stop(*_): note.write_text('terminated'); sys.exit(1)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "note.write_text('started')\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    note.write_text('KeyboardInterrupt')\n"
    )
    command = [str(bundle_folder / "launch.sh"), "--no-install", "--python", sys.executable, "--allow-altered"]
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        # a shell that runs these tests in the background has SIGINT ignored, and so would all its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    wait_until(lambda: note.exists() and note.read_text() == "started")
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert note.read_text() == seen
    assert "exit 130" in stderr.splitlines()[-1]


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shell_is_clean(bundle_folder: Path) -> None:
    command = ["shellcheck", "-x", "launch.sh", "launch/environment.sh", "launch/submit.sh", "config/target.sh"]
    done = subprocess.run(command, cwd=bundle_folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
