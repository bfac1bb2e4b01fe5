"""Run by the Python of .venv-engines: reads targets' files with the engines' own code. A line for each complaint.

python check_engines.py FOLDER: every config/trainjob.yaml, jobset.yaml and skypilot.yaml under it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

KUBERNETES = "1.33"
LONGEST = 300
"""Validators print their whole schema."""


def main(folder: Path) -> int:
    checks = {"trainjob.yaml": train_job, "jobset.yaml": job_set, "skypilot.yaml": skypilot}
    found = [(path, check) for name, check in checks.items() for path in sorted(folder.rglob(f"config/{name}"))]
    complaints = [f"{path}: {complaint}" for path, check in found for complaint in checked(path, check)]
    print(f"{len(found)} files", *complaints, sep="\n")
    return 1 if complaints else 0


def checked(path: Path, check: Any) -> Iterator[str]:
    try:
        yield from check(path)
    except Exception as error:
        yield f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST]}"


def train_job(path: Path) -> Iterator[str]:
    from kubeflow_trainer_api import models

    runtime, job = yaml.safe_load_all(path.read_text())
    yield from kept_whole(models.TrainerV1alpha1TrainingRuntime, runtime)
    yield from kept_whole(models.TrainerV1alpha1TrainJob, job)
    yield from core(runtime["spec"]["template"]["spec"])


def job_set(path: Path) -> Iterator[str]:
    from kubeflow_trainer_api import models

    document = yaml.safe_load(path.read_text())
    yield from kept_whole(models.JobsetV1alpha2JobSet, document)
    yield from core(document["spec"])


def kept_whole(model: Any, document: dict[str, Any]) -> Iterator[str]:
    """The API's own model refuses wrong types, and leaves out keys that it does not know."""
    read = model.from_dict(document).to_dict()
    if read != document:
        yield f"{model.__name__} has no such keys: {difference(document, read)}"


def difference(written: Any, read: Any, where: str = "") -> str:
    if isinstance(written, dict) and isinstance(read, dict):
        odd = [k for k in {**written, **read} if written.get(k) != read.get(k)]
        return "; ".join(difference(written.get(k), read.get(k), f"{where}.{k}") for k in odd)
    if isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        pairs = enumerate(zip(written, read, strict=True))
        return "; ".join(difference(a, b, f"{where}[{i}]") for i, (a, b) in pairs if a != b)
    return f"{where} {written!r} became {read!r}"


def core(spec: dict[str, Any]) -> Iterator[str]:
    """What the control planes make of it: a Job of batch/v1, whose schema is Kubernetes' own, and strict."""
    import kubernetes_validate

    for replicated in spec["replicatedJobs"]:
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "x"},
            "spec": replicated["template"]["spec"],
        }
        kubernetes_validate.validate(job, KUBERNETES, strict=True)
    return
    yield


def skypilot(path: Path) -> Iterator[str]:
    import sky

    written = yaml.safe_load(path.read_text())
    task = sky.Task.from_yaml(str(path))
    (resources,) = task.resources
    wanted = written["resources"]
    if task.num_nodes != written["num_nodes"] or task.name != written["name"]:
        yield f"{task.name} on {task.num_nodes} nodes"
    if resources.accelerators != wanted.get("accelerators") or resources.use_spot != wanted["use_spot"]:
        yield f"{resources}"
    if not resources.job_recovery:
        yield "no recovery"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
