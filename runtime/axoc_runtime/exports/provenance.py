"""What a run was made from, kept in its output folder: a model must be traceable without its bundle."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.exports.licences import read_licence
from axoc_runtime.exports.source import PROVENANCE
from axoc_runtime.exports.texts import keep_texts
from axoc_runtime.files import write_json
from axoc_runtime.job import DatasetJob, Job

COPIED: Final = ("spec.yaml", "spec.lock", "job.json", "axoc.bundle.json")


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
        "base": {"id": job.model.id, "revision": job.model.revision, **read_licence(source, job.model.licence)},
        "data": [{"path": d.path, "fingerprints": _fingerprints(job, d)} for d in job.datasets],
    }


def _fingerprints(job: Job, dataset: DatasetJob) -> list[str]:
    from axoc_runtime.ingest.sources import fingerprints

    try:
        return list(fingerprints(job, dataset))
    except RuntimeFailure:
        return []
