"""Strategies as others write them: DeepSpeed's JSON, its file's name, accelerate's and axolotl's FSDP settings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from axoc.importing.translate import Draft

STAGE_IN_NAME: Final = re.compile(r"(?:zero_?|z|stage)([0-3])")
OFFLOAD_IN_NAME: Final = re.compile(r"offload|cpuoffload")
STRATEGIES: Final = {0: "ddp", 1: "zero1", 2: "zero2", 3: "zero3"}


def deepspeed_file(draft: Draft, key: str) -> None:
    """A path to DeepSpeed's JSON, read where it is there, else told by its name; or the object itself."""
    written = draft.get(key)
    if isinstance(written, dict):
        deepspeed_values(draft, key, written)
        return
    if not isinstance(written, str) or not written:
        return
    found = _read(draft.folder / written) or _read(Path(written))
    if found is not None:
        deepspeed_values(draft, key, found)
        return
    name = Path(written).name.lower()
    stage = STAGE_IN_NAME.search(name)
    if stage is None:
        draft.note(
            key,
            "trains otherwise",
            reason="the file is not here, and its name tells no stage: distributed.type is left auto",
        )
        return
    draft.moved(key, "distributed.type", STRATEGIES[int(stage[1])], "by the file's name: the file is not here")
    if OFFLOAD_IN_NAME.search(name):
        draft.put("distributed.offload", "optimizer+parameters" if stage[1] == "3" else "optimizer")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def deepspeed_values(draft: Draft, key: str, values: dict[str, Any]) -> None:
    zero = values.get("zero_optimization") or {}
    stage = zero.get("stage", 0)
    if stage not in STRATEGIES:
        draft.note(key, "trains otherwise", reason=f"ZeRO stage {stage} is unknown: distributed.type is left auto")
        return
    draft.moved(key, "distributed.type", STRATEGIES[stage])
    if offload := offload_of(_device(zero, "offload_optimizer"), _device(zero, "offload_param")):
        draft.put("distributed.offload", offload)


def _device(zero: dict[str, Any], name: str) -> Any:
    found = zero.get(name)
    return found.get("device") if isinstance(found, dict) else None


def offload_of(optimizer: Any, parameters: Any) -> str | None:
    """None: nothing lies on the host. NVMe becomes the host's memory, which is what axoc has."""
    if parameters not in (None, "none", False):
        return "optimizer+parameters"
    return "optimizer" if optimizer not in (None, "none", False) else None


def fsdp(draft: Draft, key: str, *, offload: Any, sharding: Any, checkpointing: Any) -> None:
    """Of FSDP 1 and 2. What it shards beside the optimizer FSDP2 always does; NO_SHARD is DDP."""
    kind = str(sharding or "").upper()
    if kind == "NO_SHARD":
        draft.moved(key, "distributed.type", "ddp")
        return
    draft.moved(key, "distributed.type", "fsdp")
    if kind == "SHARD_GRAD_OP":
        draft.note(
            key,
            "left out",
            reason="SHARD_GRAD_OP keeps weights gathered between forward and backward: FSDP2 here does not",
        )
    if offload in (True, "true"):
        draft.put("distributed.offload", "optimizer+parameters")
    if checkpointing in (True, "true"):
        draft.put("training.gradient_checkpointing", "full")
