"""``python -m axoc_runtime.quantize.worker STAGE SETTINGS METHOD RESULT``: one stage of one method, in a process of its own,
so that its memory is its own and a crash is a row. It writes RESULT, also for what it could not do.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.exports.base import NONE, CannotExport
from axoc_runtime.files import whole_folder, write_json
from axoc_runtime.quantize.methods import UNQUANTIZED, Method, read_methods
from axoc_runtime.quantize.settings import Settings, read_settings

PROGRESS: Final = "@ "
"""Begins a line that tells how far it is."""
INSTALL: Final = "pip install 'axoc-runtime[quantized,export]'; for mlx: 'axoc-runtime[mlx]'"
MAKE: Final = "make"
MEASURE: Final = "measure"


def folder_of(settings: Settings, method: Method) -> Path:
    return Path(settings.model) if method.variant == NONE else Path(settings.output) / "models" / method.file


def make(settings: Settings, method: Method) -> dict[str, Any]:
    """Writes the quantized folder. Raises CannotExport."""
    from axoc_runtime.exports.registry import exporter
    from axoc_runtime.quantize.memory import Peak
    from axoc_runtime.quantize.view import source_of

    source, writer = source_of(settings), exporter(method.format)
    reason = writer.refuses(source, method.variant)
    if reason is not None:
        raise CannotExport(reason)
    peak, began = Peak(settings.gpus > 0), time.perf_counter()
    with whole_folder(folder_of(settings, method)) as fresh:
        notes = writer.write(source, fresh, method.variant)
        made = {"seconds": time.perf_counter() - began, "peak_bytes": peak.bytes(), "notes": list(notes)}
    return made


def measure(settings: Settings, method: Method) -> dict[str, Any]:
    from axoc_runtime.exports.source import PROVENANCE
    from axoc_runtime.exports.texts import read_texts
    from axoc_runtime.quantize import evaluate, runner
    from axoc_runtime.quantize.memory import Peak
    from axoc_runtime.quantize.view import source_of

    source, folder = source_of(settings), folder_of(settings, method)
    windows = read_texts(settings.view / PROVENANCE, source.tokenizer).measured
    peak = Peak(runner.on_gpu(method, settings.gpus))
    consumer = runner.runner(source, folder, method, settings.gpus)
    loading = peak.bytes()
    peak.again()
    read = evaluate.read(consumer, windows, int(source.config.vocab_size), _say, settings.read_seconds)
    prompt = windows[0].ids[: settings.prompt_tokens]
    writing = evaluate.write_speed(
        consumer, prompt, settings.generated_tokens, settings.repeats, settings.write_seconds
    )
    return {
        "size_bytes": _size(folder, whole=method.variant != NONE),
        "runner": consumer.name,
        "on_gpu": runner.on_gpu(method, settings.gpus),
        "peak_bytes": peak.bytes(),
        "loading_peak_bytes": loading,
        "read": asdict(read),
        "write_speed": None if writing is None else asdict(writing),
        "note": runner.note(method, settings.gpus),
    }


def _size(folder: Path, *, whole: bool) -> int:
    """All that was written; of a folder that others made, what is needed of it."""
    kept = (p for p in folder.rglob("*") if p.is_file() and (whole or p.suffix in (".safetensors", ".json", ".jinja")))
    return sum(p.stat().st_size for p in kept)


def _say(text: str) -> None:
    print(f"{PROGRESS}{text}", flush=True)


def main(arguments: list[str]) -> int:
    stage, settings, name, result = arguments
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # takes away what is half written
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        wanted = UNQUANTIZED if name == NONE else read_methods((name,))[-1]
        found = (make if stage == MAKE else measure)(read_settings(Path(settings)), wanted)
    except (CannotExport, RuntimeFailure) as error:
        found = {"error": str(error), "fix": error.fix}
    except ModuleNotFoundError as error:
        found = {"error": f"not installed: {error.name}", "fix": INSTALL}
    except Exception as error:  # whatever a library raises is a row of the table
        import traceback

        traceback.print_exc()  # to the log
        found = {"error": _told(error), "fix": None}
    write_json(Path(result), json.loads(json.dumps(found)))
    return 0


def _told(error: Exception) -> str:
    from axoc_runtime.failure.explain import first_line, out_of_memory

    if out_of_memory(error):
        return "the memory of this machine is not enough"
    return f"{type(error).__name__}: {first_line(error)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
