"""Adapter, quantization of the base and strategy: trained, merged, exported and measured. The ticks of docs/compatibility.md."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import forked
import pytest
from axoc_runtime.exports.report import read_report
from axoc_runtime.exports.run import export
from combinations import of_job, ran
from e2e.conftest import make_work, parameters
from e2e.test_strategies import CONFIGS, of_strategy
from e2e.test_told import ALONE
from exports.tiny import run_of
from runtime.jobs import LORA, write_job

pytestmark = pytest.mark.slow

FORMATS = ("safetensors", "pytorch", "vllm", "gguf", "onnx", "ort")
SLOW_FORMATS = ("openvino", "tensorrt")
WIDTH = 2 * (128 + 128) + 2 * (128 + 64) + 3 * (128 + 256)  # in and out of q and o, k and v, gate, up and down
OUT = 2 * 128 + 2 * 64 + 2 * 256 + 128
ADAPTERS: dict[str, tuple[dict[str, Any] | None, int]] = {
    "none": (None, 0),
    "lora": (LORA, 2 * 4 * WIDTH),
    "rslora": (LORA | {"use_rslora": True}, 2 * 4 * WIDTH),
    "dora": (LORA | {"use_dora": True}, 2 * (4 * WIDTH + OUT)),
    "lora+": (LORA | {"loraplus_lr_ratio": 4.0}, 2 * 4 * WIDTH),
    "pissa": (LORA | {"init": "pissa"}, 2 * 4 * WIDTH),
    "loftq": (LORA | {"init": "loftq"}, 2 * 4 * WIDTH),
}
"""(the job's adapter, what it trains in two layers at rank 4)."""
CASES = (
    *(("none", "none", s) for s in ("ddp", "fsdp", "zero2", "zero3")),
    *(("lora", "none", s) for s in ("single", "ddp", "fsdp", "zero2", "zero3")),
    *(("lora", "nf4", s) for s in ("single", "ddp", "zero2")),
    ("dora", "none", "ddp"),
    ("rslora", "none", "ddp"),
)
MERGED = (
    *(("dora", "none", s) for s in ("fsdp", "zero3")),
    *(("pissa", "none", s) for s in ("ddp", "fsdp", "zero3")),
    ("lora+", "none", "ddp"),
    ("lora", "fp4", "ddp"),
    ("loftq", "nf4", "ddp"),
)
"""What is merged of other adapters than LoRA is as good as LoRA's for any format: one shows it."""
FULLY = (("none", "none", "fsdp"), ("lora", "nf4", "ddp"))
"""Exported in the formats that take longest, too."""


@dataclass
class Bench:
    """A folder with a model of a Llama's shape and rows, and a server that starts runs on them."""

    work: Path
    server: forked.Server

    def run(self, job: Path, *commands: str) -> None:
        log = self.work / "log"
        for command in commands:
            log.unlink(missing_ok=True)
            self.server.start(job, log, command=command)
            assert set(self.server.wait()) == {0}, log.read_text()[-3000:]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, server: forked.Server) -> Bench:
    folder = tmp_path_factory.mktemp("combinations")
    return Bench(make_work(folder, run_of("llama", folder / "base") / "final"), server)


def written(bench: Bench, adapter: str, quantization: str, strategy: str) -> Path:
    """The job's file."""
    trained, count = ADAPTERS[adapter]
    job = {f"distributed__{k}": v for k, v in ALONE.items()}
    if strategy != "single":
        job = of_strategy(bench.work, strategy, bench.work / "model")
    job |= {
        "adapter": trained,
        "expect__trainable_parameters": count or parameters(bench.work / "model"),
        "output_dir": f"{adapter}-{quantization}-{strategy}",
        "training__max_steps": 2,
        "training__global_batch_size": 2 if strategy == "single" else 4,
    }
    if quantization != "none":
        job["model__quantization"] = {"method": quantization, "double_quantization": True, "options": {}}
        job["distributed__mixed_precision"] = "bf16"
        job["model__dtype"] = "bfloat16"
        if strategy.startswith("zero"):
            config = deepcopy(CONFIGS[strategy]) or {}
            (bench.work / "deepspeed.json").write_text(json.dumps(config | {"bf16": {"enabled": True}}))
    return write_job(bench.work, **job)


def exported(case: tuple[str, str, str]) -> tuple[str, ...]:
    if case in MERGED:
        return ("safetensors",)
    return (*FORMATS, *SLOW_FORMATS) if case in FULLY else FORMATS


def claiming(case: tuple[str, str, str]) -> Any:
    adapter, quantization, strategy = case
    parts = {"adapter": adapter, "quantization": quantization, "strategy": strategy}
    return pytest.param(
        case, marks=pytest.mark.combination(**parts, export=("none", *exported(case))), id="-".join(case)
    )


@pytest.mark.parametrize("case", [claiming(case) for case in (*CASES, *MERGED)])
def test_what_was_trained_is_exported_and_measured(bench: Bench, case: tuple[str, str, str]) -> None:
    job = written(bench, *case)
    bench.run(job, "prepare", "train", "finish")
    out = bench.work / "-".join(case)
    export(out, exported(case))
    found = read_report(out)
    assert found.keys() == set(exported(case))
    assert all(abs(row["measured"]["perplexity_difference"]) < 0.01 for row in found.values())
    assert (", merged" in (out / "exports/safetensors/README.md").read_text()) == (case[0] != "none")
    kept = json.loads((out / "provenance/job.json").read_text())
    ran(of_job(kept), *(of_job(kept, name) for name in found))


@pytest.mark.skipif(find_spec("mlx_lm") is None, reason="mlx-lm is not installed: its wheels need glibc 2.35")
@pytest.mark.combination(adapter="lora", quantization=("none", "nf4"), strategy="ddp", export="mlx")
def test_an_adapter_is_read_merged_by_mlx(bench: Bench) -> None:
    for quantization in ("none", "nf4"):
        out = bench.work / f"lora-{quantization}-ddp"
        if not (out / "provenance/job.json").is_file():
            bench.run(written(bench, "lora", quantization, "ddp"), "prepare", "train", "finish")
        export(out, ["mlx"])
        assert read_report(out)["mlx"]["measured"]["logits_difference"] < (
            1e-3 if quantization == "none" else 0.03
        )  # bf16
        ran(of_job(json.loads((out / "provenance/job.json").read_text()), "mlx"))
