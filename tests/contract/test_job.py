"""job.json is written by one side and read by the other: neither imports the other, so this holds them together."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from axoc.emit.job import SCHEMA_VERSION, job_dict
from axoc.ir.canonical import dumps
from axoc_runtime import job as runtime_job
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.job import Job, read_job

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def plans() -> ModuleType:
    spec = importlib.util.spec_from_file_location("contract_plans", ROOT / "tests/emit/plans.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["contract_plans"] = module
    spec.loader.exec_module(module)
    return module


def read(folder: Path, value: Any) -> Job:
    path = folder / "job.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return read_job(path)


@pytest.mark.parametrize("name", ["cpu_ddp_lora", "zero3_8xh100", "fsdp_moe_2x8h200"])
def test_what_the_compiler_writes_the_runtime_reads_and_gives_back(
    plans: ModuleType, tmp_path: Path, name: str
) -> None:
    plan = getattr(plans, name)()
    written = dumps(job_dict(plan))
    job = read(tmp_path, written)
    assert job.to_dict() == json.loads(written)
    hostile = dumps(job_dict(plans.hostile(plan)))
    assert read(tmp_path, hostile).to_dict() == json.loads(hostile)


def documented() -> dict[str, Any]:
    """The example of docs/job.md, its comments and alternatives cut off."""
    text = (ROOT / "docs/job.md").read_text()
    block = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert block is not None
    value: dict[str, Any] = json.loads(re.sub(r"\s//.*", "", block[1]))
    return value


def test_the_documented_example_is_what_both_sides_mean(plans: ModuleType, tmp_path: Path) -> None:
    example = documented()
    assert read(tmp_path, example).name == "quickstart"
    assert keys(example) == keys(json.loads(dumps(job_dict(plans.cpu_ddp_lora())))) | {"adapter"}


def keys(value: Any, at: str = "") -> set[str]:
    """Dotted names, down to the parts that are documented as a whole."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return keys(value[0], at)
    if not isinstance(value, dict) or at in ("adapter", "datasets.options"):
        return {at}
    return {k for name, v in value.items() for k in keys(v, f"{at}.{name}".lstrip("."))}


def test_versions_agree() -> None:
    assert SCHEMA_VERSION == runtime_job.SCHEMA_VERSION


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version is 2, this runtime reads 1"),
        ({"surprise": 1}, "job.surprise: not a key of this schema version"),
        ({"training": None}, "job.training: expected an object"),
        ({"name": 3}, "job.name: expected str"),
        ({"tracking": "tensorboard"}, "job.tracking: expected a list"),
    ],
)
def test_another_schema_is_refused_and_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        read(tmp_path, documented() | change)
    assert message in str(caught.value) and caught.value.exit_code == 1


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    broken = documented()
    del broken["output_dir"]
    broken["training"]["micro_batch_size"] = "four"
    with pytest.raises(RuntimeFailure) as caught:
        read(tmp_path, broken)
    assert "job.output_dir: missing" in str(caught.value)
    assert "job.training.micro_batch_size: expected int" in str(caught.value)


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="cannot be read as a job"):
        read(tmp_path, "{")


def test_paths_count_from_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work" / "bundle").mkdir(parents=True)
    job = read(tmp_path / "work" / "bundle", documented())
    assert job.output == tmp_path / "work" / "axoc-output"
    monkeypatch.setenv("AXOC_BASE_DIR", str(tmp_path))
    assert read(tmp_path / "work" / "bundle", documented()).output == tmp_path / "axoc-output"
