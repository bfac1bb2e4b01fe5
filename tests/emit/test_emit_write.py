"""The writer: whole or not at all, and never over what it did not write."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest
from axoc.emit import write
from axoc.emit.bundle import build_bundle
from axoc.emit.write import compare_bundle, write_bundle
from axoc.errors import UserError
from axoc.ir.bundle import Bundle


@pytest.fixture
def bundle(plans: ModuleType, fake_runtime: None) -> Bundle:
    return build_bundle(plans.cpu_ddp_lora(), "version: 1\n", "{}\n")


@pytest.fixture
def other(plans: ModuleType, fake_runtime: None) -> Bundle:
    return build_bundle(plans.zero3_8xh100(), "version: 1\n", "{}\n")


def on_disk(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def as_dict(bundle: Bundle) -> dict[str, bytes]:
    return {file.path: file.content for file in bundle.files}


def test_writes_exactly_the_bundle_and_nothing_beside_it(bundle: Bundle, tmp_path: Path) -> None:
    write_bundle(bundle, tmp_path / "a" / "bundle")
    assert on_disk(tmp_path / "a") == {f"bundle/{path}": content for path, content in as_dict(bundle).items()}
    assert os.access(tmp_path / "a/bundle/launch.sh", os.X_OK)


def test_replaces_an_older_bundle_whole(bundle: Bundle, other: Bundle, tmp_path: Path) -> None:
    write_bundle(other, tmp_path / "b")
    write_bundle(bundle, tmp_path / "b")
    assert on_disk(tmp_path) == {f"b/{path}": content for path, content in as_dict(bundle).items()}


def test_bytecode_is_not_in_the_way(bundle: Bundle, tmp_path: Path) -> None:
    write_bundle(bundle, tmp_path / "b")
    (tmp_path / "b/runtime/axoc_runtime/__pycache__").mkdir()
    (tmp_path / "b/runtime/axoc_runtime/__pycache__/x.pyc").touch()
    assert compare_bundle(bundle, tmp_path / "b") == []
    write_bundle(bundle, tmp_path / "b")


def test_empty_folder_is_taken(bundle: Bundle, tmp_path: Path) -> None:
    write_bundle(bundle, tmp_path)
    assert compare_bundle(bundle, tmp_path) == []


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "axoc.bundle.json"])
def test_folder_that_is_no_bundle_is_refused(bundle: Bundle, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="not overwritten"):
        write_bundle(bundle, tmp_path)
    assert on_disk(tmp_path) == {name: b"mine"}


def test_file_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("mine")
    with pytest.raises(UserError, match="there is a file"):
        write_bundle(bundle, tmp_path / "b")


def test_results_of_a_run_inside_a_bundle_are_not_deleted(bundle: Bundle, tmp_path: Path) -> None:
    write_bundle(bundle, tmp_path / "b")
    (tmp_path / "b/axoc-output").mkdir()
    (tmp_path / "b/axoc-output/model.safetensors").write_text("weights")
    with pytest.raises(UserError, match=r"axoc-output/model\.safetensors"):
        write_bundle(bundle, tmp_path / "b")
    assert (tmp_path / "b/axoc-output/model.safetensors").read_text() == "weights"


def test_failure_while_writing_leaves_the_old_bundle(
    bundle: Bundle, other: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(bundle, tmp_path / "b")
    before = on_disk(tmp_path)

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device") if self.name == "spec.yaml" else OSError(0, "other")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="cannot write the bundle"):
        write_bundle(other, tmp_path / "b")
    assert on_disk(tmp_path) == before


def test_failure_of_the_second_rename_is_undone(
    bundle: Bundle, other: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(bundle, tmp_path / "b")
    before, rename = on_disk(tmp_path), Path.rename

    def fail_for_fresh(self: Path, target: Path) -> Path:
        if "axoc-new" in self.name:
            raise OSError(16, "Device or resource busy")
        return rename(self, target)

    monkeypatch.setattr(write.Path, "rename", fail_for_fresh)
    with pytest.raises(UserError, match="busy"):
        write_bundle(other, tmp_path / "b")
    assert on_disk(tmp_path) == before


def test_symlink_to_a_bundle_stays_a_symlink(bundle: Bundle, other: Bundle, tmp_path: Path) -> None:
    write_bundle(other, tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    write_bundle(bundle, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert compare_bundle(bundle, tmp_path / "real") == []


def test_drift_names_each_file(bundle: Bundle, tmp_path: Path) -> None:
    write_bundle(bundle, tmp_path)
    (tmp_path / "job.json").write_text("{}")
    (tmp_path / "PLAN.md").unlink()
    (tmp_path / "runtime/new.py").touch()
    (tmp_path / "launch.sh").chmod(0o644)
    (tmp_path / "notes.txt").touch()  # not among what the bundle owns
    expected = ["missing: PLAN.md", "differs: job.json", "not executable: launch.sh", "extra: runtime/new.py"]
    assert compare_bundle(bundle, tmp_path) == expected


def test_drift_of_another_plan_names_its_leftovers(bundle: Bundle, other: Bundle, tmp_path: Path) -> None:
    write_bundle(other, tmp_path)
    assert "extra: config/deepspeed.json" in compare_bundle(bundle, tmp_path)


def test_missing_folder_is_all_missing(bundle: Bundle, tmp_path: Path) -> None:
    assert len(compare_bundle(bundle, tmp_path / "none")) == len(bundle.files)
