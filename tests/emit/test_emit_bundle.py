"""The bundle as a whole: which files, their digests, the same bytes everywhere, nothing of the user's let loose."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
from axoc.emit.bundle import build_bundle
from axoc.emit.manifest import MANIFEST
from axoc.errors import UserError
from axoc.ir.bundle import Bundle
from axoc.ir.canonical import digest
from axoc.ir.plan import Plan

CONTRACT_FILES = {
    "launch.sh",
    "PLAN.md",
    "plan.json",
    "spec.yaml",
    "spec.lock",
    "job.json",
    "requirements.lock",
    "Dockerfile",
    "report.html",
    "axoc.bundle.json",
    "runtime/axoc_runtime/__init__.py",
}


@pytest.fixture
def bundle(plan: Plan, fake_runtime: None) -> Bundle:
    return build_bundle(plan, "version: 1  # mine\n", "lock: 1\n")


def test_has_every_file_of_the_contract(bundle: Bundle) -> None:
    paths = [file.path for file in bundle.files]
    assert set(paths) >= CONTRACT_FILES
    assert paths == sorted(set(paths))


def test_only_launch_sh_is_executable(bundle: Bundle) -> None:
    assert [file.path for file in bundle.files if file.executable] == ["launch.sh"]


def test_spec_and_lock_are_verbatim(bundle: Bundle) -> None:
    assert (bundle.text("spec.yaml"), bundle.text("spec.lock")) == ("version: 1  # mine\n", "lock: 1\n")


def test_manifest_digests_every_other_file(bundle: Bundle) -> None:
    manifest = json.loads(bundle.text(MANIFEST))
    assert manifest["schema_version"] == 1
    assert manifest["files"] == {f.path: digest(f.content) for f in bundle.files if f.path != MANIFEST}


def test_config_belongs_to_the_strategy(plan: Plan, bundle: Bundle) -> None:
    expected = {"ddp": None, "zero3": "config/deepspeed.json", "fsdp": "config/fsdp.json"}[
        plan.chosen.candidate.strategy
    ]
    configs = [f.path for f in bundle.files if f.path.startswith("config/") and f.path.endswith(".json")]
    assert configs == ([expected] if expected else [])
    assert json.loads(bundle.text("job.json"))["distributed"]["config"] == expected


def test_runtime_sources_are_found_without_importing_them(plans: ModuleType, tmp_path: Path) -> None:
    package = tmp_path / "axoc_runtime"
    (package / "ingest" / "__pycache__").mkdir(parents=True)
    for name in ("__init__.py", "py.typed", "notes.txt", "ingest/__init__.py", "ingest/__pycache__/x.pyc"):
        (package / name).write_text("raise SystemExit('imported')")
    code = "from axoc.emit.sources import runtime_files; print([f.path for f in runtime_files()])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    expected = ["__init__.py", "ingest/__init__.py", "py.typed"]
    assert done.stdout.strip() == str([f"runtime/axoc_runtime/{name}" for name in expected])


def test_same_bytes_under_another_hash_seed_time_zone_and_folder(tmp_path: Path) -> None:
    plans = Path(__file__).with_name("plans.py")
    code = (
        f"import importlib.util, sys; s = importlib.util.spec_from_file_location('p', {str(plans)!r})\n"
        "p = importlib.util.module_from_spec(s); sys.modules['p'] = p; s.loader.exec_module(p)\n"
        "from axoc.emit import bundle, sources; sources.runtime_files = lambda: []\n"
        "print(bundle.build_bundle(p.zero3_8xh100(), 'a', 'b').text('axoc.bundle.json'))"
    )
    printed = []
    for seed, zone, folder in (("0", "UTC", "/"), ("1", "Asia/Kathmandu", str(tmp_path))):
        changed = {"PYTHONHASHSEED": seed, "TZ": zone, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env=os.environ | changed,
            capture_output=True,
            text=True,
            check=True,
        )
        printed.append(done.stdout)
    assert printed[0] == printed[1] and "bundle_digest" in printed[0]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links |= {value or "" for name, value in attrs if name in ("href", "src", "onload", "onclick")}


@pytest.fixture
def hostile(plans: ModuleType, fake_runtime: None) -> Bundle:
    return build_bundle(plans.hostile(plans.cpu_ddp_lora()), "", "")


def test_hostile_values_stay_out_of_the_shell_and_the_container(hostile: Bundle, plans: ModuleType) -> None:
    for path in ("launch.sh", "launch/environment.sh", "config/launch.env", "Dockerfile"):
        assert "pwned" not in hostile.text(path), path


def test_hostile_values_are_text_in_the_report(hostile: Bundle) -> None:
    parser = Tags()
    parser.feed(hostile.text("report.html"))
    assert "script" not in parser.tags
    assert {link for link in parser.links if not link.startswith("#")} == set()
    assert "&lt;script&gt;" in hostile.text("report.html")
    assert "{{ 7*7 }}" in hostile.text("report.html")


def test_hostile_values_are_text_in_the_markdown(hostile: Bundle) -> None:
    markdown = hostile.text("PLAN.md")
    lines = [line for line in markdown.splitlines() if "pwned" in line]
    assert lines and "\x1b" not in markdown and "javascript:" not in markdown
    for line in lines:
        assert not re.search(r"(?<!\\)[`<>*\[]", line.removeprefix("> **Warning.**")), line
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("| name")]
    assert cells == [5]


def test_hostile_values_arrive_unchanged_in_the_job(hostile: Bundle, plans: ModuleType) -> None:
    job = json.loads(hostile.text("job.json"))
    assert job["name"] == job["datasets"][0]["path"] == job["samples"]["prompts"][0] == plans.HOSTILE


def test_report_loads_nothing(bundle: Bundle) -> None:
    html = bundle.text("report.html")
    assert not re.search(r"<(script|link|img|iframe)|@import|url\(", html)
    assert "prefers-color-scheme: dark" in html and "@media print" in html and "width=device-width" in html


def test_report_draws_the_ledger_against_the_limit(plans: ModuleType, fake_runtime: None) -> None:
    plan = plans.zero3_8xh100()
    memory = plan.chosen.estimate.memory
    html = build_bundle(plan, "", "").text("report.html")
    width = round(100 * memory.device_used_bytes / memory.capacity_bytes, 2)
    assert f'<rect class="fill" width="{width}" height="10"/>' in html
    assert html.count('<tr><th scope="row">weights</th>') == 1


def test_plan_markdown_tells_what_a_reviewer_needs(plan: Plan, bundle: Bundle) -> None:
    markdown = bundle.text("PLAN.md")
    for needed in ("you set it", "fastest that fits", "weights", "loss", "3.1 s", "./launch.sh", "prices are of"):
        assert needed in markdown, needed
    assert "[MUON_DEEPSPEED](https://github.com/deepspeedai/DeepSpeed/issues/1) | 1 |" in markdown
    assert "| memory | 60 |" in markdown


@pytest.mark.parametrize(("name", "base"), [("cpu_ddp_lora", "python:3.11-slim"), ("zero3_8xh100", "nvidia/cuda:13.0")])
def test_dockerfile_fits_the_device(plans: ModuleType, fake_runtime: None, name: str, base: str) -> None:
    lines = build_bundle(getattr(plans, name)(), "", "").text("Dockerfile").splitlines()
    assert [line for line in lines if line.startswith(f"FROM {base}")]
    assert "USER axoc" in lines and lines[-1] == 'ENTRYPOINT ["/bundle/launch.sh", "--no-install"]'


@pytest.mark.parametrize(
    ("folder", "path"),
    [("p", "../evil.py"), ("p", "/etc/evil.py"), ("p", "a//b.py"), ("p", "a/./b.py"), ("p", "evil.so"), ("p", "a b.py"),
     ("..", "a.py"), ("a/b", "a.py"), ("", "a.py"), ("p", "")],
)  # fmt: skip
def test_plugin_that_could_leave_its_folder_is_refused(
    plans: ModuleType, fake_runtime: None, folder: str, path: str
) -> None:
    with pytest.raises(UserError, match="cannot go into a bundle"):
        build_bundle(plans.cpu_ddp_lora(), "", "", plugin_files={folder: {"pyproject.toml": b"", path: b""}})


def test_plugin_sources_are_copied(plans: ModuleType, fake_runtime: None) -> None:
    plugin = {"docs_data": {"pyproject.toml": b"x", "src/docs_data/__init__.py": b"y"}}
    bundle = build_bundle(plans.cpu_ddp_lora(), "", "", plugin_files=plugin)
    assert bundle.text("plugins/docs_data/src/docs_data/__init__.py") == "y"
