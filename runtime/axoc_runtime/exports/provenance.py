"""What a run was made from, kept in its output folder: a model must be traceable without its bundle."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.exports.source import PROVENANCE
from axoc_runtime.exports.texts import keep_texts
from axoc_runtime.files import write_json
from axoc_runtime.job import DatasetJob, Job

COPIED: Final = ("spec.yaml", "spec.lock", "job.json", "axoc.bundle.json")
UNKNOWN_LICENCE: Final = (
    "The base model's folder names no licence: look it up where the model comes from before you share this one."
)


def keep(job: Job) -> None:
    """The bundle's own account, the base model, the data by fingerprint, and the texts that exports are measured on."""
    from axoc_runtime.prepare import load_prepared

    folder = job.output / PROVENANCE
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (job.bundle_dir / name).is_file():
            shutil.copyfile(job.bundle_dir / name, folder / name)
    write_json(folder / "run.json", account(job))
    with suppress(RuntimeFailure):  # the data may be gone by now, which is no reason to lose a trained model
        keep_texts(folder, *load_prepared(job))


def account(job: Job) -> dict[str, Any]:
    source = Path(job.model_source())
    return {
        "name": job.name,
        "spec_digest": job.spec_digest,
        "axoc_version": job.axoc_version,
        "objective": job.training.objective,
        "adapter": None if job.adapter is None else f"{job.adapter.type}, rank {job.adapter.rank}",
        "base": {"id": job.model.id, "revision": job.model.revision, **licence(source)},
        "data": [{"path": d.path, "fingerprints": _fingerprints(job, d)} for d in job.datasets],
    }


def _fingerprints(job: Job, dataset: DatasetJob) -> list[str]:
    from axoc_runtime.ingest.sources import fingerprints

    try:
        return list(fingerprints(job, dataset))
    except RuntimeFailure:
        return []


def licence(folder: Path) -> dict[str, str | None]:
    """As the model's own card says, and its licence file where there is one."""
    card, named = folder / "README.md", None
    if card.is_file():
        head = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
        line = re.search(r"(?m)^license:\s*([\w.\-]+)\s*$", head[1]) if head else None
        named = line[1] if line else None
    files = sorted(p.name for p in folder.glob("LICEN[CS]E*")) if folder.is_dir() else []
    return {"licence": named, "licence_file": files[0] if files else None}
