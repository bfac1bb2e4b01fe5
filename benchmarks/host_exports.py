"""Host memory and disk of exports, each format in a process of its own: what docs/host-memory.md compares with the plan.

    python benchmarks/host_exports.py [--json rows.jsonl] RUN_DIR [FORMAT ...]

RUN_DIR is the output folder of a finished run. Each format is made and checked as `axoc export` does it, while the kernel is
asked four times a second what the process holds (/proc/PID/smaps_rollup: anonymous and shared memory; pages of files are
told apart) and how much the folder of exports takes, hard links counted once. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent))
from host_memory import rollup

ROOT: Final = Path(__file__).resolve().parent.parent
SECONDS_BETWEEN: Final = 0.25
FORMATS: Final = (
    "safetensors", "safetensors:nf4", "safetensors:llm_int8", "pytorch", "vllm", "vllm:fp8", "vllm:int8", "vllm:gptq",
    "vllm:awq", "gguf", "gguf:q8_0", "gguf:q4_k_m", "onnx", "onnx:int4", "ort", "openvino", "tensorrt",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--json", type=Path, help="add what was measured there, a line a format")
    parser.add_argument(
        "formats", nargs="*", help="several with commas between are made in one process; all by default"
    )
    options = parser.parse_args()
    for formats in options.formats or FORMATS:
        row = {"run": options.run.resolve().parent.name, "formats": formats} | measure(options.run.resolve(), formats)
        print(json.dumps(row), flush=True)
        if options.json:
            with options.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    return 0


def measure(run: Path, formats: str) -> dict[str, Any]:
    shutil.rmtree(run / "exports", ignore_errors=True)
    command = [sys.executable, "-m", "axoc_runtime.exports", str(run), "--formats", formats]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "runtime"), "OMP_NUM_THREADS": "1"}
    seen = {"held": 0, "mapped": 0, "resident": 0, "disk": 0}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None:
            found = rollup(Path(f"/proc/{process.pid}"))
            now = {
                "held": found["Anonymous"] + found["Pss_Shmem"],
                "mapped": found["Pss_File"],
                "resident": found["Rss"],
                "disk": size_of(run / "exports"),
            }
            seen = {name: max(value, now[name]) for name, value in seen.items()}
            time.sleep(SECONDS_BETWEEN)
        assert process.stderr is not None
        told = process.stderr.read().decode()[-300:]
    return (
        seen
        | {"left": size_of(run / "exports"), "exit": process.returncode}
        | ({"told": told} if process.returncode else {})
    )


def size_of(folder: Path) -> int:
    """Of all files in it, by inode."""
    sizes: dict[int, int] = {}
    for path in folder.rglob("*"):
        try:
            found = path.stat()
        except OSError:
            continue
        if path.is_file():
            sizes[found.st_ino] = found.st_size
    return sum(sizes.values())


if __name__ == "__main__":
    sys.exit(main())
