"""The environment that launch.sh makes, with a Python whose venv and pip only write down what they are asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from axoc.emit.bundle import build_bundle
from axoc.emit.write import write_bundle

Install = Callable[..., "subprocess.CompletedProcess[str]"]

FAKE_PYTHON = """\
#!/bin/sh
case "$*" in
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "venv" >>"$FAKE_LOG" ;;
  *"-m pip install "*)
    echo "pip $* DS_BUILD_OPS=$DS_BUILD_OPS" >>"$FAKE_LOG"
    case "$*" in *"$FAKE_FAIL"*) case "$*" in *extra-index-url*) ;; *) exit 1 ;; esac ;; esac ;;
  *) exec "{python}" "$@" ;;
esac
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    python = tmp_path / "fake python" / "python3"
    python.parent.mkdir()
    python.write_text(FAKE_PYTHON.replace("{python}", sys.executable))
    python.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AXOC_", "PYTHON", "DS_"))}
    return kept | {
        "AXOC_PYTHON": str(python),
        "FAKE_LOG": str(tmp_path / "log"),
        "FAKE_FAIL": "nothing fails",
        "XDG_CACHE_HOME": str(tmp_path / "the cache"),
    }


@pytest.fixture
def install(environment: dict[str, str], bundle_folder: Path) -> Install:
    def call(entry: Path = bundle_folder / "launch.sh", **extra: str) -> subprocess.CompletedProcess[str]:
        command = [str(entry), "--install"]
        return subprocess.run(command, env=environment | extra, capture_output=True, text=True, timeout=60)

    return call


def pips(environment: dict[str, str]) -> list[str]:
    return [line for line in Path(environment["FAKE_LOG"]).read_text().splitlines() if line.startswith("pip")]


def made(environment: dict[str, str]) -> Path:
    (folder,) = [p for p in Path(environment["XDG_CACHE_HOME"], "axoc/envs").iterdir() if p.is_dir()]
    return folder


def test_torch_then_wheels_then_sources_all_hashed(install: Install, environment: dict[str, str]) -> None:
    done = install()
    assert done.returncode == 0, done.stderr
    torch, wheels, sources = pips(environment)
    assert all("--require-hashes" in line and "--no-deps" in line for line in (torch, wheels, sources))
    assert "torch.txt" in torch and "--only-binary :all:" in torch
    assert "wheels.txt" in wheels and "--only-binary :all:" in wheels
    assert "sources.txt" in sources and "--no-build-isolation" in sources and "DS_BUILD_OPS=0" in sources


def test_every_package_is_in_exactly_one_pass(
    install: Install, environment: dict[str, str], bundle_folder: Path
) -> None:
    install()
    parts = {
        name: (made(environment) / ".axoc-locks" / f"{name}.txt").read_text() for name in ("torch", "wheels", "sources")
    }
    lock = (bundle_folder / "requirements.lock").read_text()
    assert sum(part.count("--hash") for part in parts.values()) == lock.count("--hash")
    assert sum(part.count("==") for part in parts.values()) >= lock.count("==") - lock.count("== '")
    assert parts["torch"].startswith("torch==2.13.0+cpu") and parts["torch"].count("torch==") == 2
    assert parts["sources"].startswith("deepspeed==")


def test_second_launch_reuses_it(install: Install, environment: dict[str, str]) -> None:
    install()
    install()
    assert len(pips(environment)) == 3


def test_half_made_environment_is_made_again(install: Install, environment: dict[str, str]) -> None:
    assert install(FAKE_FAIL="wheels.txt").returncode == 11
    stale = made(environment) / "stale"
    stale.touch()
    assert install().returncode == 0
    assert not stale.exists()


def test_cpu_build_is_looked_for_in_torchs_own_index(install: Install, environment: dict[str, str]) -> None:
    done = install(FAKE_FAIL="torch.txt")
    assert done.returncode == 0, done.stderr
    first, second = pips(environment)[:2]
    assert "extra-index-url" not in first
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in second


def test_cuda_never_asks_the_cpu_index(
    plans: ModuleType, install: Install, environment: dict[str, str], tmp_path: Path
) -> None:
    write_bundle(build_bundle(plans.zero3_8xh100(), "", ""), tmp_path / "cuda")
    assert install(tmp_path / "cuda" / "launch.sh", FAKE_FAIL="torch.txt").returncode == 11
    assert "extra-index-url" not in "".join(pips(environment))


def test_folder_of_someone_else_is_not_touched(install: Install, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.tex").touch()
    done = install(AXOC_ENV_DIR=str(theirs))
    assert done.returncode == 11
    assert [p.name for p in theirs.iterdir()] == ["thesis.tex"]


def test_two_launches_at_once_make_one_environment(environment: dict[str, str], bundle_folder: Path) -> None:
    command = [str(bundle_folder / "launch.sh"), "--install"]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert len(pips(environment)) == 3


def test_plugins_are_installed_apart_from_a_copy(
    plans: ModuleType, install: Install, environment: dict[str, str], tmp_path: Path
) -> None:
    plugin = {"my plug": {}} | {"docs_data": {"pyproject.toml": b"[project]\n", "docs_data/__init__.py": b""}}
    del plugin["my plug"]
    folder = tmp_path / "with plugin"
    write_bundle(build_bundle(plans.cpu_ddp_lora(), "", "", plugin_files=plugin), folder)
    assert install(folder / "launch.sh").returncode == 0
    assert install(folder / "launch.sh").returncode == 0
    (line,) = [line for line in pips(environment) if "--target" in line]
    assert "--no-index" in line and "--no-deps" in line and "--no-build-isolation" in line
    assert "/.sources/docs_data/" in line and str(folder) not in line
    assert not list(made(environment).rglob("docs_data"))
