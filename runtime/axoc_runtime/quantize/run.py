"""The profile from beginning to end: settings, texts, each method in its processes, the report."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from axoc_runtime.errors import EXIT_EXPORT, EXIT_INPUTS, RuntimeFailure
from axoc_runtime.exports.source import PROVENANCE
from axoc_runtime.exports.texts import FILE
from axoc_runtime.files import locked, write_json
from axoc_runtime.quantize.attention import attention_of
from axoc_runtime.quantize.methods import Method, read_methods
from axoc_runtime.quantize.recommend import advise
from axoc_runtime.quantize.report import FILES, Profile, table, write_report
from axoc_runtime.quantize.rows import rows_of
from axoc_runtime.quantize.settings import Settings
from axoc_runtime.quantize.stages import Stages
from axoc_runtime.quantize.view import make_view, model_folder, source_of

CPU_SECONDS: Final = 60.0
"""For which a method is measured on a CPU, unless it is told otherwise: six methods of a 135M model in a quarter of an hour."""


def run(given: argparse.Namespace) -> int:
    """0 where every method was measured, 18 where one was not. Raises RuntimeFailure."""
    _check(given)
    methods = read_methods(tuple(n.strip() for n in given.quant_methods.split(",") if n.strip()))
    settings, device = _settings(given)
    output = Path(settings.output)
    output.mkdir(parents=True, exist_ok=True)
    with locked(output / ".lock"):
        measured_on = make_view(settings)
        write_json(output / ".work" / "settings.json", asdict(settings))
        texts = hashlib.sha256((settings.view / PROVENANCE / FILE).read_bytes()).hexdigest()
        records = _all(settings, methods, settings.digest(texts, device))
        profile = _profile(settings, device, measured_on, records, given.max_loss)
        write_report(profile)
        _tidy(settings)
    print(f"\n{table(profile)}\n\nWritten: {', '.join(str(output / f) for f in FILES)}", flush=True)
    return EXIT_EXPORT if any(row.error for row in profile.rows) else 0


def _tidy(settings: Settings) -> None:
    shutil.rmtree(Path(settings.output) / ".work", ignore_errors=True)
    if not settings.keep_models:
        shutil.rmtree(Path(settings.output) / "models", ignore_errors=True)


def _check(given: argparse.Namespace) -> None:
    names = ("windows", "window_tokens", "calibration_rows", "calibration_tokens")
    wrong = [n for n in names if (value := getattr(given, n)) is not None and value < 2]
    wrong += ["gpu_count"] if given.gpu_count < 0 else []
    wrong += ["method_seconds"] if given.method_seconds is not None and not given.method_seconds > 0 else []
    wrong += ["max_loss"] if not given.max_loss > 0 else []
    if wrong:
        told = ", ".join(f"--{n.replace('_', '-')} {getattr(given, n)}" for n in wrong)
        raise RuntimeFailure(f"too small: {told}", EXIT_INPUTS)


def _settings(given: argparse.Namespace) -> tuple[Settings, str]:
    gpus, device = _device(given.gpu_count)
    folder = model_folder(given.model)
    return Settings(
        model=str(folder),
        model_id=given.model_name or given.model,
        output=str(given.output_dir.resolve()),
        data=None if given.data is None else str(given.data.resolve()),
        gpus=gpus,
        windows=given.windows,
        window_tokens=given.window_tokens,
        calibration_rows=given.calibration_rows or (128 if gpus else 8),
        calibration_tokens=given.calibration_tokens or (512 if gpus else 256),
        seconds=given.method_seconds or (None if gpus else CPU_SECONDS),
        keep_models=given.keep_models,
    ), device


def _device(wanted: int) -> tuple[int, str]:
    """GPUs to use, and the hardware's name. Those beyond ``wanted`` are hidden from the workers."""
    import torch

    if not wanted:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # libraries take a GPU where they see one
    if not wanted or not torch.cuda.is_available():
        return 0, f"CPU ({platform.machine()}, {os.cpu_count()} cores)"
    here = torch.cuda.device_count()
    if here < wanted:
        raise RuntimeFailure(f"--gpu-count {wanted}, and {here} are here", EXIT_INPUTS, f"--gpu-count {here}")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(here))))
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible.split(",")[:wanted])
    return wanted, f"{wanted} x {torch.cuda.get_device_name(0)}"


def _all(settings: Settings, methods: tuple[Method, ...], digest: str) -> list[tuple[Method, dict[str, Any]]]:
    stages, found = Stages(settings), []
    for index, method in enumerate(methods):
        file = Path(settings.output) / "measurements" / f"{method.file}.json"
        title = f"[{index + 1}/{len(methods)}] {method.name}"
        record = _done(file, method, digest)
        if record is not None:
            print(f"{title}: measured before", flush=True)
        else:
            record = stages.run(method, title) | {"digest": digest, "export": method.written}
            write_json(file, record)
        found.append((method, record))
    return found


def _done(file: Path, method: Method, digest: str) -> dict[str, Any] | None:
    """What failed is tried again."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = found.get("digest") == digest and found.get("export") == method.written
    return found if same and found.get("error") is None and found.get("measured") else None


def _profile(
    settings: Settings, device: str, measured_on: str, records: list[tuple[Method, dict[str, Any]]], most_lost: float
) -> Profile:
    rows = rows_of(records)
    return Profile(
        settings=settings,
        device=device,
        attention=attention_of(source_of(settings).config),
        measured_on=measured_on,
        most_lost=most_lost,
        rows=rows,
        advice=advise(rows, most_lost),
    )
