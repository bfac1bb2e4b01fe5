"""``python -m axoc_runtime.trace JOB.json [--config CONFIG_JSON] [--padded] [--when-told]``: one JSON object on standard
output.

``--padded``: batches in which some rows are shorter than the longest, so that attention needs a mask. ``--when-told``: the
files are there only once a line comes in; until then, what takes long is imported.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from axoc_runtime.errors import EXIT_ENVIRONMENT, EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job, read_job

USAGE: Final = "usage: python -m axoc_runtime.trace JOB.json [--config CONFIG_JSON] [--padded] [--when-told]"


def main(arguments: list[str]) -> int:
    padded, waits = "--padded" in arguments, "--when-told" in arguments
    arguments = [a for a in arguments if a not in ("--padded", "--when-told")]
    if len(arguments) not in (1, 3) or (len(arguments) == 3 and arguments[1] != "--config"):
        print(USAGE, file=sys.stderr)
        return 2
    try:
        if waits:
            heavy_imports()
            sys.stdin.readline()
        job = read_job(Path(arguments[0]))
        config = read_config(job, arguments[2] if len(arguments) == 3 else None)
        print(json.dumps(traced(job, config, padded=padded)))
    except RuntimeFailure as failure:
        print(f"axoc: {failure.render()}", file=sys.stderr)
        return failure.exit_code
    return 0


def read_config(job: Job, path: str | None) -> dict[str, Any]:
    """The config.json that was named, or the one in the model's own folder."""
    file = Path(path) if path is not None else Path(job.model_source()) / "config.json"
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fix = "pass --config with the path of the model's config.json"
        raise RuntimeFailure(f"{file}: cannot be read as a config.json: {error}", EXIT_INPUTS, fix) from None
    if not isinstance(value, dict):
        raise RuntimeFailure(f"{file}: not a config.json: no object at the top", EXIT_INPUTS)
    return value


def traced(job: Job, config: dict[str, Any], *, input_gradients: bool = False, padded: bool = False) -> dict[str, Any]:
    """The trace of a job, as its JSON."""
    heavy_imports()
    from torch._subclasses.fake_tensor import DataDependentOutputException

    from axoc_runtime.trace.extrapolate import trace
    from axoc_runtime.trace.step import imported

    with uncollected():
        imported(job)
    try:
        return trace(job, config, input_gradients=input_gradients, padded=padded).to_dict()
    except DataDependentOutputException as error:
        told = f"the modelling code of {config.get('model_type')} looks at a tensor's values ({error}), and a trace has only shapes"
        fix = "take the plan's own figures, whose band is wide, and measure a first run"
        raise RuntimeFailure(told, EXIT_INPUTS, fix) from error


def heavy_imports() -> None:
    """What every trace needs; nothing of it may look for a network."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.filterwarnings("ignore")
    with uncollected():
        try:
            import torch  # noqa: F401
            import transformers
        except ImportError as error:
            fix = "use the Python of an environment with the runtime's packages"
            raise RuntimeFailure(f"this Python lacks what a trace runs: {error}", EXIT_ENVIRONMENT, fix) from None
        import transformers.trainer_pt_utils

        import axoc_runtime.trace.extrapolate  # noqa: F401
    transformers.logging.set_verbosity_error()


@contextmanager
def uncollected() -> Iterator[None]:
    """For imports: of modules nothing is garbage, and looking for it takes a fifth of the time, then and later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # nothing is left to do, and freeing torch's modules takes time
