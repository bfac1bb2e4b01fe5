"""Kubernetes: a TrainJob of Kubeflow Trainer v2 with a runtime of its own, and a JobSet for clusters without it."""

from __future__ import annotations

from typing import Any, Final

from axoc.emit.placement import placement
from axoc.emit.targets.base import Node, Target, node_of, packaged, text_file
from axoc.emit.targets.names import dns_name
from axoc.emit.targets.yaml_text import yaml_documents
from axoc.ir.bundle import BundleFile
from axoc.ir.plan import Plan

TRAINER: Final = "trainer.kubeflow.org/v1alpha1"
JOBSET: Final = "jobset.x-k8s.io/v1alpha2"
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
LONGEST_NAME: Final = 48
"""Pods are called NAME-node-0-INDEX-SUFFIX, and a host name has 63 characters."""
PORT: Final = 29500
RESUMING: Final = ["/bundle/launch.sh", "--no-install", "--resume"]
"""Pods are made anew at every restart, so each goes on from what is there; with nothing there it starts."""
COMMENT: Final = """\
Written by axoc: launch.sh submits it. The image holds the bundle; build and push it once:
docker build -t IMAGE BUNDLE && docker push IMAGE"""


class Kubernetes(Target):
    """launch.sh takes the TrainJob where the cluster knows it."""

    def shell(self) -> str:
        return packaged("kubernetes.sh")

    def figures(self, plan: Plan) -> dict[str, str | int]:
        return {"PLAN_IMAGE": image_of(plan)}

    def files(self, plan: Plan) -> list[BundleFile]:
        return [
            text_file("config/trainjob.yaml", yaml_documents(COMMENT, [_runtime(plan), _train_job(plan)])),
            text_file("config/jobset.yaml", yaml_documents(COMMENT, [_job_set(plan)])),
        ]


def image_of(plan: Plan) -> str:
    """Where none is named: one of this spec, so that another spec's is never run in its place."""
    digest = plan.spec_digest.removeprefix("sha256:")[:12]
    return plan.request.target.image or f"{dns_name(plan.request.name, LONGEST_NAME)}:{digest}"


def _runtime(plan: Plan) -> dict[str, Any]:
    """In the run's own namespace: clusters differ in the runtimes they have, and none has our volumes."""
    spec = {
        "mlPolicy": {"numNodes": placement(plan).nodes, "torch": {}},
        "template": {"spec": {"replicatedJobs": [_job(plan, [])], **_job_set_rules(plan)}},
    }
    return {"apiVersion": TRAINER, "kind": "TrainingRuntime", "metadata": _metadata(plan, queued=False), "spec": spec}


def _train_job(plan: Plan) -> dict[str, Any]:
    place = placement(plan)
    trainer = {
        "image": image_of(plan),
        "command": RESUMING,
        "numNodes": place.nodes,
        "resourcesPerNode": _resources(node_of(plan)),
        "numProcPerNode": place.processes_per_node,
    }
    name = dns_name(plan.request.name, LONGEST_NAME)
    reference = {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": name}
    spec = {"runtimeRef": reference, "trainer": trainer, **_deadline(plan)}
    return {"apiVersion": TRAINER, "kind": "TrainJob", "metadata": _metadata(plan, queued=True), "spec": spec}


def _job_set(plan: Plan) -> dict[str, Any]:
    name = dns_name(plan.request.name, LONGEST_NAME)
    index = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
    place: list[dict[str, Any]] = [
        {"name": "NNODES", "value": str(placement(plan).nodes)},
        {"name": "NODE_RANK", "valueFrom": index},
        {"name": "MASTER_ADDR", "value": f"{name}-node-0-0.{name}"},
        {"name": "MASTER_PORT", "value": str(PORT)},
    ]
    spec: dict[str, Any] = {
        "network": {"enableDNSHostnames": True, "subdomain": name, "publishNotReadyAddresses": True}
    }
    spec |= {"replicatedJobs": [_job(plan, place)], **_job_set_rules(plan)}
    return {"apiVersion": JOBSET, "kind": "JobSet", "metadata": _metadata(plan, queued=True), "spec": spec}


def _job_set_rules(plan: Plan) -> dict[str, Any]:
    """One pod that fails, or is evicted, restarts them all: the others have lost it."""
    return {"failurePolicy": {"maxRestarts": plan.request.target.retries}}


def _metadata(plan: Plan, *, queued: bool) -> dict[str, Any]:
    wanted = plan.request.target
    metadata: dict[str, Any] = {"name": dns_name(plan.request.name, LONGEST_NAME)}
    if wanted.namespace is not None:
        metadata["namespace"] = wanted.namespace
    if wanted.queue is not None and queued:
        metadata["labels"] = {QUEUE_LABEL: wanted.queue}
    return metadata


def _deadline(plan: Plan) -> dict[str, int]:
    hours = plan.request.target.time_limit_hours
    return {} if hours is None else {"activeDeadlineSeconds": max(1, round(hours * 3600))}


def _job(plan: Plan, environment: list[dict[str, Any]]) -> dict[str, Any]:
    """The replicated job: a pod a node. Kubeflow knows it by its name and label, and sets its environment itself."""
    nodes = placement(plan).nodes
    deadline = _deadline(plan) if environment else {}  # the TrainJob has its own
    spec = {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes, "backoffLimit": 0, **deadline}
    label = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    template = {"metadata": {"labels": label}, "spec": {**spec, "template": {"spec": _pod(plan, environment)}}}
    return {"name": "node", "replicas": 1, "template": template}


def _pod(plan: Plan, environment: list[dict[str, Any]]) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "node", "image": image_of(plan), "command": RESUMING}
    if environment:
        container["env"] = environment
    container |= {"resources": _resources(node_of(plan)), "volumeMounts": _mounts()}
    given = {"securityContext": {"fsGroup": 1000, "fsGroupChangePolicy": "OnRootMismatch"}}
    given |= dict(sorted(plan.request.target.options.items()))
    return {"restartPolicy": "Never", "containers": [container], "volumes": _volumes(plan), **given}


def _resources(node: Node) -> dict[str, Any]:
    """Devices and memory are limits too; cores are not, as a throttled process holds up all others."""
    gpus = {node.gpu_resource: node.gpus} if node.gpus else {}
    memory = {"memory": f"{node.memory_gib}Gi"}
    return {"requests": {"cpu": node.cpus, **memory, **gpus}, "limits": {**memory, **gpus}}


def _mounts() -> list[dict[str, Any]]:
    return [{"name": "work", "mountPath": "/work"}, {"name": "shared-memory", "mountPath": "/dev/shm"}]


def _volumes(plan: Plan) -> list[dict[str, Any]]:
    """/work is where the image's relative paths count from. NCCL and data loaders need more shared memory than 64 MiB."""
    claim = plan.request.target.claim
    work: dict[str, Any] = {"emptyDir": {}} if claim is None else {"persistentVolumeClaim": {"claimName": claim}}
    return [{"name": "work", **work}, {"name": "shared-memory", "emptyDir": {"medium": "Memory"}}]
