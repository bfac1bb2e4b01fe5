"""Every golden pair: identical to what is committed, and whatever the hash seed, time zone and folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import golden  # noqa: E402


@pytest.mark.parametrize("name", sorted(golden.read_pairs()))
def test_golden_is_current(name: str) -> None:
    fresh, folder = golden.render(golden.read_pairs()[name]), ROOT / "golden" / name
    old = {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}
    assert not golden.differences(name, old, fresh), "run make golden and review the diff"
    assert fresh == old


def test_at_least_eight_pairs_and_every_folder_belongs_to_one() -> None:
    pairs = golden.read_pairs()
    folders = {p.name for p in (ROOT / "golden").iterdir() if p.is_dir()}
    assert len(pairs) >= 8
    assert folders == set(pairs)


def bundle_digest(cwd: Path, **environment: str) -> str:
    """Plans the quickstart in a process of its own and digests the whole bundle, runtime and lock included."""
    program = (
        "import hashlib; from pathlib import Path; from axoc import driver;"
        "p = driver.plan(Path('specs/quickstart.yaml'), 'cpu'); b = driver.bundle(p, Path('bundle'));"
        "print(hashlib.sha256(repr([(f.path, f.content, f.executable) for f in b.files]).encode()).hexdigest())"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def test_same_bytes_under_another_hash_seed_time_zone_and_folder(tmp_path: Path) -> None:
    elsewhere = tmp_path / "another folder"
    elsewhere.mkdir()
    for name in ("specs", "examples"):
        shutil.copytree(ROOT / name, elsewhere / name, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__", "build"))
    here = bundle_digest(ROOT, PYTHONHASHSEED="0", TZ="UTC")
    assert len(here) == hashlib.sha256().digest_size * 2
    assert here == bundle_digest(elsewhere, PYTHONHASHSEED="4242", TZ="Asia/Tokyo", LC_ALL="C")


def test_same_numbers_on_a_processor_without_vector_instructions() -> None:
    from numpy._core import _multiarray_umath as numpys

    name = "llama3-70b-full__h100-sxm-80gb-8"
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); import golden;"
        f"print(golden.render(golden.read_pairs()[{name!r}])['bundle/plan.json'], end='')"
    )
    without = " ".join(f for f in numpys.__cpu_dispatch__ if numpys.__cpu_features__[f])
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": without}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == (ROOT / "golden" / name / "bundle" / "plan.json").read_text()


def test_the_readmes_picture_is_current_and_loads_nothing() -> None:
    import picture

    drawn = picture.draw(picture.SOURCE.read_text())
    assert drawn == picture.TARGET.read_text(), "run make golden"
    assert "url(http" not in drawn and "<script" not in drawn


def test_the_specs_page_is_current() -> None:
    import spec_doc

    assert spec_doc.document() == spec_doc.TARGET.read_text(), "run make golden"
