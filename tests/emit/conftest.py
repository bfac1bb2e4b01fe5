"""Fixtures of the emitter's tests. Plans are made in plans.py, so that these tests need no search."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from axoc.emit import sources
from axoc.emit.bundle import build_bundle
from axoc.emit.write import write_bundle
from axoc.ir.bundle import BundleFile
from axoc.ir.plan import Plan

HERE = Path(__file__).parent
NAMES = ("cpu_ddp_lora", "zero3_8xh100", "fsdp_moe_2x8h200")

FAKE_RUNTIME = '''\
"""Writes down how it was called, then ends as the environment says."""
import os, sys
from pathlib import Path

arguments = sys.argv[1:]
with Path(os.environ["FAKE_LOG"]).open("a") as log:
    print(*arguments[:1], *arguments[2:], Path(arguments[1]).is_file(), sep="|", file=log)
sys.exit(int(os.environ.get("FAKE_" + arguments[0].upper(), "0")))
'''


FAKE_TORCHRUN = '''\
"""Runs one worker, and like torchrun turns every failure into 1."""
import os, subprocess, sys
with open(os.environ["FAKE_LOG"], "a") as log:
    print("torchrun", *sys.argv[1:sys.argv.index("-m")], sep="|", file=log)
worker = sys.argv[sys.argv.index("-m"):]
sys.exit(1 if subprocess.run([sys.executable, *worker]).returncode else 0)
'''


@pytest.fixture(scope="session")
def plans() -> ModuleType:
    spec = importlib.util.spec_from_file_location("emit_plans", HERE / "plans.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["emit_plans"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=NAMES)
def plan(request: pytest.FixtureRequest, plans: ModuleType) -> Plan:
    made = getattr(plans, request.param)()
    assert isinstance(made, Plan)
    return made


@pytest.fixture
def fake_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles carry a runtime that only writes down how it was called."""
    files = [
        BundleFile(path="runtime/axoc_runtime/__init__.py", content=b""),
        BundleFile(path="runtime/axoc_runtime/__main__.py", content=FAKE_RUNTIME.encode()),
        BundleFile(path="runtime/axoc_runtime/torchrun.py", content=FAKE_TORCHRUN.encode()),
    ]
    monkeypatch.setattr(sources, "runtime_files", lambda: files)


@pytest.fixture
def bundle_folder(plans: ModuleType, fake_runtime: None, tmp_path: Path) -> Path:
    """A written bundle, in a folder whose name has spaces."""
    folder = tmp_path / "my work" / "the bundle"
    write_bundle(build_bundle(plans.cpu_ddp_lora(), "version: 1\n", "{}\n"), folder)
    return folder
