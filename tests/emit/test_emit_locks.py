"""tools/update_locks.py: what it makes of uv's resolution."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "update_locks.py"

RESOLVED = """\
# made by uv from /home/someone/runtime.in
absl-py==2.5.1 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
nvidia-cublas==13.1 ; sys_platform == 'linux' \\
    --hash=sha256:cc
torch==2.13.0 \\
    --hash=sha256:dd
triton==3.7.1 ; sys_platform == 'linux' \\
    --hash=sha256:ee
"""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("update_locks", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cpu_lock_has_no_cuda_and_torch_twice(tool: ModuleType) -> None:
    lock = tool.finished("cpu", RESOLVED)
    assert "nvidia" not in lock and "triton" not in lock and "someone" not in lock
    assert lock.index("torch==2.13.0+cpu ; ") < lock.index("torch==2.13.0 ; ")
    cpu_build = lock[lock.index("torch==2.13.0+cpu") : lock.index("torch==2.13.0 ;")]
    assert cpu_build.count("--hash=sha256:") == 3 and "dd" not in cpu_build.split()
    assert lock.endswith(
        "torch==2.13.0 ; sys_platform != 'linux' or platform_machine != 'x86_64' \\\n    --hash=sha256:dd\n"
    )


def test_cuda_lock_is_kept_whole(tool: ModuleType) -> None:
    assert tool.entries(tool.finished("cuda", RESOLVED)) == tool.entries(RESOLVED)


def test_a_new_torch_without_known_wheels_is_an_error(tool: ModuleType) -> None:
    with pytest.raises(KeyError, match=r"2\.99\.0"):
        tool.finished("cpu", RESOLVED.replace("2.13.0", "2.99.0"))


@pytest.mark.parametrize("profile", ["cpu", "cuda"])
def test_every_named_requirement_is_locked(tool: ModuleType, profile: str) -> None:
    lock = (tool.LOCKS / f"{profile}.lock").read_text()
    for line in (tool.LOCKS / f"{profile}.in").read_text().split():
        assert f"\n{line}" in lock or f"\n{line}==" in lock, line
