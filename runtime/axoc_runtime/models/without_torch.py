"""transformers' tokenizers without torch, for a process that only prepares data: torch takes longer to import than some
thousands of rows take to prepare, and as much memory as all of their processes.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points
from typing import Final

from axoc_runtime.job import Job
from axoc_runtime.models.source import source_arguments

PLUGINS: Final = ("axoc_runtime.objectives", "axoc_runtime.rewards", "axoc_runtime.tokenizers")
"""Those that may ask for it. Formats are imported before: one that imports torch, or transformers, has done so."""
QUIET: Final = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
"""Else it says that it found no torch."""


def import_transformers(job: Job) -> None:
    """In a process that will do nothing else: transformers then takes itself to be alone until the process ends. With torch
    for processors of images, where what is not ours may ask for it, and where it is there already."""
    if "transformers" in sys.modules or "torch" in sys.modules or _may_ask_for_torch(job):
        return
    quiet = os.environ.get(QUIET)
    sys.modules["torch"] = None  # type: ignore[assignment]  # what is None cannot be imported, and is not found
    os.environ[QUIET] = "1"
    try:
        from transformers import is_torch_available

        is_torch_available()  # it remembers the answer
    finally:
        del sys.modules["torch"]
        os.environ.pop(QUIET) if quiet is None else os.environ.update({QUIET: quiet})


def _may_ask_for_torch(job: Job) -> bool:
    source = source_arguments(job)
    code = any(entry_points(group=group) for group in PLUGINS) or bool(source["trust_remote_code"])
    return code or "gguf_file" in source or job.model.vision
