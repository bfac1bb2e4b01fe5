"""Bundles of two nodes for each target, and commands of engines that only write down how they were called."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from axoc.emit.bundle import build_bundle
from axoc.emit.write import write_bundle
from axoc.ir.plan import Plan

Launch = Callable[..., "subprocess.CompletedProcess[str]"]
RECORD = '#!/bin/sh\nprintf "%s" "${0##*/}" >>"$FAKE_LOG"\nprintf "|%s" "$@" >>"$FAKE_LOG"\necho >>"$FAKE_LOG"\n'


@pytest.fixture
def planned(plans: ModuleType) -> Callable[..., Plan]:
    """``planned("slurm", partition="gpu")``: two nodes of eight GPUs."""

    def make(kind: str, *, name: str = "demo", plan: Plan | None = None, **settings: Any) -> Plan:
        plan = plan or plans.fsdp_moe_2x8h200()
        target = replace(plan.request.target, type=kind, **settings)
        return replace(plan, request=replace(plan.request, target=target, name=name))

    return make


@pytest.fixture
def launch(planned: Callable[..., Plan], fake_runtime: None, tmp_path: Path, commands: Callable[..., Path]) -> Launch:
    """Writes the target's bundle and runs its launch.sh; keywords in capitals are environment, others settings."""

    def call(kind: str, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
        settings = {k: v for k, v in more.items() if not k.isupper()}
        folder = tmp_path / "my work" / "the bundle"
        write_bundle(build_bundle(planned(kind, **settings), "version: 1\n", "{}\n"), folder)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AXOC_", "OMP_", "SLURM", "KUBE", "RAY"))}
        kept |= {"FAKE_LOG": str(tmp_path / "log"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        kept |= {"PATH": f"{commands()}:{Path(sys.executable).parent}:/usr/bin:/bin"}
        command = [str(folder / "launch.sh"), "--no-install", "--python", sys.executable, *options]
        environment = kept | {k: v for k, v in more.items() if k.isupper()}
        return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=60)

    return call


@pytest.fixture
def commands(tmp_path: Path) -> Callable[..., Path]:
    """``commands(sbatch=...)``: a folder for PATH with these commands; without a text they only write down the call."""

    def make(**texts: str | None) -> Path:
        folder = tmp_path / "commands"
        folder.mkdir(exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text or RECORD)
            (folder / name).chmod(0o755)
        return folder

    return make


@pytest.fixture
def logged(tmp_path: Path) -> Callable[[], list[str]]:
    log = tmp_path / "log"
    return lambda: log.read_text().splitlines() if log.exists() else []
