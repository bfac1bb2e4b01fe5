"""``python -m axoc_runtime.trace JOB.json [--config CONFIG_JSON] [--padded]``: one JSON object on standard output.

``--padded``: batches in which some rows are shorter than the longest, so that attention needs a mask.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any, Final

from axoc_runtime.errors import EXIT_ENVIRONMENT, EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job, read_job

USAGE: Final = "usage: python -m axoc_runtime.trace JOB.json [--config CONFIG_JSON] [--padded]"


def main(arguments: list[str]) -> int:
    padded = "--padded" in arguments
    arguments = [a for a in arguments if a != "--padded"]
    if len(arguments) not in (1, 3) or (len(arguments) == 3 and arguments[1] != "--config"):
        print(USAGE, file=sys.stderr)
        return 2
    try:
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
    """Heavy imports happen here, and nothing may look for a network."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.filterwarnings("ignore")
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        fix = "use the Python of an environment with the runtime's packages"
        raise RuntimeFailure(f"this Python lacks what a trace runs: {error}", EXIT_ENVIRONMENT, fix) from None
    from axoc_runtime.trace.extrapolate import trace
    from axoc_runtime.trace.step import imported

    transformers.logging.set_verbosity_error()
    imported(job)
    gc.freeze()  # modules are not looked through again for cycles while the trace runs
    return trace(job, config, input_gradients=input_gradients, padded=padded).to_dict()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
