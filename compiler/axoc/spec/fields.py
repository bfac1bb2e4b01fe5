"""Where each field of the spec lives: known keys of every mapping, and the dotted names of all fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from axoc.spec.adapter import Adapter
from axoc.spec.dataset import Dataset
from axoc.spec.distributed import Distributed
from axoc.spec.misc import Export, Policy, Samples
from axoc.spec.model import Model
from axoc.spec.objective import Objective
from axoc.spec.parts import Part
from axoc.spec.preferences import Grpo, Preference, RewardFunction
from axoc.spec.problems import Path
from axoc.spec.quantization import Quantization
from axoc.spec.spec import Spec
from axoc.spec.target import Target
from axoc.spec.tokenizer import Tokenizer
from axoc.spec.training import Training

PARTS: Final[dict[str, type[Part]]] = {
    "": Spec,
    "model": Model,
    "adapter": Adapter,
    "dataset": Dataset,
    "training": Training,
    "training.preference": Preference,
    "training.grpo": Grpo,
    "training.grpo.rewards": RewardFunction,
    "distributed": Distributed,
    "export": Export,
    "policy": Policy,
    "policy.objective": Objective,
    "samples": Samples,
    "target": Target,
    "model.quantization": Quantization,
    "model.tokenizer": Tokenizer,
}


def dotted(path: Path) -> str:
    """``dataset[1].path``"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def known_keys(path: Path) -> tuple[str, ...]:
    """Keys of the mapping at ``path``; empty where any key is allowed."""
    part = PARTS.get(dotted(tuple(p for p in path if isinstance(p, str))))
    return tuple(part.model_fields) if part else ()


def all_fields() -> Iterator[str]:
    """Dotted names, the outermost first."""
    for prefix, part in PARTS.items():
        for name in part.model_fields:
            yield f"{prefix}.{name}" if prefix else name
