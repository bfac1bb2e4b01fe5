"""Where a model's files come from, in transformers' terms. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from axoc_runtime.job import Job


def source_arguments(job: Job) -> dict[str, Any]:
    """Keyword arguments of from_pretrained: a folder, a hub id with its revision, or one GGUF file."""
    source = job.model_source()
    shared: dict[str, Any] = {"trust_remote_code": job.model.trust_remote_code}
    if source.endswith(".gguf"):
        path = Path(source)
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name, **shared}
    if not Path(source).is_dir():
        shared["revision"] = job.model.revision or "main"
    return {"pretrained_model_name_or_path": source, **shared}
