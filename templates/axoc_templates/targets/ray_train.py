"""Runs launch.sh once on each node of a Ray cluster: Ray Train places the workers and starts them again where one is lost.

python ray_train.py STORAGE [OPTIONS OF launch.sh ...]
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

BUNDLE = Path(__file__).resolve().parent.parent
FAILED = 14
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """launch.sh ends what it has started when Ray ends this worker."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def free_address() -> str:
    """Of this node, as Ray's other nodes reach it, with a port that nobody listens on."""
    import ray

    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"


def on_node(config: dict[str, Any]) -> None:
    """A worker of Ray Train: one a node."""
    from ray.train import get_context
    from ray.train.collective import broadcast_from_rank_zero

    context = get_context()
    rank, nodes = context.get_world_rank(), context.get_world_size()
    address = broadcast_from_rank_zero(free_address() if rank == 0 else None)
    host, _, port = address.rpartition(":")
    place = {"NODE_RANK": rank, "NNODES": nodes, "MASTER_ADDR": host, "MASTER_PORT": port, "AXOC_RAY_WORKER": 1}
    kept = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "PYTHONPATH")}  # those are Ray's
    environment = kept | {name: str(value) for name, value in place.items()}
    command = [config["launch"], *config["options"]]
    code = subprocess.call(command, env=environment, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)
    if code:
        raise RuntimeError(f"axoc: launch.sh on node {rank} ({socket.gethostname()}) ended with code {code}")


def main(storage: str, options: list[str]) -> int:
    os.environ["RAY_TRAIN_V2_ENABLED"] = (
        "1"  # before Ray is imported; ray.train.data_parallel_trainer takes no classes of v2
    )
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    settings = json.loads((BUNDLE / "config/ray.json").read_text(encoding="utf-8"))
    try:
        ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), log_to_driver=True)
    except ConnectionError as error:
        fix = "start one with `ray start --head`, or set RAY_ADDRESS to one that runs"
        print(f"axoc: no Ray cluster is here: {error}\n  fix: {fix}", file=sys.stderr)
        return FAILED
    resuming = options if "--resume" in options else [*options, "--resume"]  # at every start: Ray restarts workers
    trainer = DataParallelTrainer(
        on_node,
        train_loop_config={"launch": str(BUNDLE / "launch.sh"), "options": resuming},
        scaling_config=ScalingConfig(
            num_workers=settings["workers"],
            resources_per_worker=settings["resources_per_worker"],
            placement_strategy="SPREAD",
        ),
        run_config=RunConfig(
            name=settings["name"],
            storage_path=storage,
            failure_config=FailureConfig(max_failures=settings["max_failures"]),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:  # whatever Ray raises for a worker that failed: its own lines are above
        print(f"axoc: {str(error).strip().splitlines()[-1]}", file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
