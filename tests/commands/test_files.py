"""Files a command writes are whole or not there, and a disk that refuses is told in a line."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from axoc.errors import UserError
from axoc.files import write_text

AXOC = str(Path(sys.executable).parent / "axoc")
SPEC = "model: Qwen/Qwen2.5-0.5B\ndataset: rows.jsonl\n"


def full_disk() -> None:
    """In a child: a file of more than 16 bytes cannot be written, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, resource.RLIM_INFINITY))


def lock(folder: Path, *, full: bool) -> subprocess.CompletedProcess[str]:
    command = [AXOC, "lock", "spec.yaml"]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, preexec_fn=full_disk if full else None
    )


def test_a_full_disk_leaves_the_lock_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n')
    assert lock(tmp_path, full=False).returncode == 0
    before = (tmp_path / "spec.lock").read_text()
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    refused = lock(tmp_path, full=True)
    assert refused.returncode == 1
    assert refused.stderr == "spec.lock: cannot write: File too large\n"
    assert (tmp_path / "spec.lock").read_text() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.jsonl", "spec.lock", "spec.yaml"]


def test_links_modes_and_what_is_no_file_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    write_text(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    write_text(Path(os.devnull), "gone")
    assert not Path(os.devnull).is_file()
    with pytest.raises(UserError, match="Is a directory"):
        write_text(tmp_path, "x")
    with pytest.raises(UserError, match="No such file"):
        write_text(tmp_path / "none" / "file", "x")
