"""Attention backends and what each supports, as data. Imports nothing heavy."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Final

HALF: Final = frozenset({"bfloat16", "float16"})


@dataclass(frozen=True, kw_only=True)
class Backend:
    name: str
    """In a spec and in job.json."""
    implementation: str
    """In transformers."""
    documents: str
    """What keeps packed documents apart: the kernel, which never computes across a boundary, or a mask, which is made in
    every forward pass and computes all of it."""
    dtypes: frozenset[str] | None = None
    """Of query, key and value; None: any."""
    head_multiple: int = 1
    head_max: int | None = None
    grouped: bool = True
    """A key head serves several query heads without being copied."""
    sliding_window: bool = True
    softcapping: bool = False
    dropout: bool = True
    capability: tuple[int, int] | None = None
    """The least compute capability of CUDA; None: any device, a CPU too."""
    package: str | None = None
    """To be installed beside torch."""


BACKENDS: Final = {
    b.name: b
    for b in (
        Backend(name="eager", implementation="eager", documents="mask", grouped=False, softcapping=True),
        Backend(name="sdpa", implementation="sdpa", documents="mask"),
        Backend(
            name="flex",  # torch/nn/attention/flex_attention.py: no backward on a CPU
            implementation="flex_attention",
            documents="mask",
            softcapping=True,
            dropout=False,
            capability=(8, 0),
        ),
        Backend(
            name="varlen",  # torch/nn/attention/varlen.py: flash attention's kernels, dropout fixed at zero
            implementation="axoc_varlen",
            documents="kernel",
            dtypes=HALF,
            head_multiple=8,
            head_max=256,
            dropout=False,
            capability=(8, 0),
        ),
        Backend(
            name="flash_attention_2",
            implementation="flash_attention_2",
            documents="kernel",
            dtypes=HALF,
            head_multiple=8,
            head_max=256,
            softcapping=True,
            capability=(8, 0),
            package="flash_attn",
        ),
        Backend(
            name="flash_attention_3",
            implementation="flash_attention_3",
            documents="kernel",
            dtypes=HALF,
            head_multiple=8,
            head_max=256,
            softcapping=True,
            dropout=False,
            capability=(9, 0),
            package="flash_attn_interface",
        ),
        Backend(
            name="flash_attention_4",  # flash_attn/cute/interface.py: no dropout; capped scores only through its own function
            implementation="axoc_varlen_4",  # transformers takes a name with "flash" in it for one of its own
            documents="kernel",
            dtypes=HALF,
            head_multiple=8,
            head_max=256,
            dropout=False,
            capability=(9, 0),
            package="flash_attn.cute",
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Heads:
    """What a model asks of attention."""

    size: int
    softcapping: float | None = None
    dropout: float = 0.0
    sliding_window: int | None = None

    @classmethod
    def of(cls, config: Any) -> Heads:
        """From transformers' configuration of a language model."""
        config = config.get_text_config()
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            size=int(size),
            softcapping=getattr(config, "attn_logit_softcapping", None),
            dropout=float(getattr(config, "attention_dropout", 0.0) or 0.0),
            sliding_window=getattr(config, "sliding_window", None),
        )


def obstacles(backend: Backend, heads: Heads, dtype: str, capability: tuple[int, int] | None) -> list[str]:
    """Why ``backend`` cannot run these heads. ``dtype``: that attention computes in; ``capability``: CUDA's, None on a CPU."""
    found = []
    if backend.capability is not None and capability is None:
        found.append("it needs a CUDA device")
    elif backend.capability is not None and capability is not None and capability < backend.capability:
        found.append("it needs CUDA capability {}.{}, this is {}.{}".format(*backend.capability, *capability))
    if backend.dtypes is not None and dtype not in backend.dtypes:
        found.append(f"it computes in {' or '.join(sorted(backend.dtypes))}, not in {dtype}")
    if heads.size % backend.head_multiple or (backend.head_max is not None and heads.size > backend.head_max):
        found.append(f"heads of {heads.size} are not a multiple of {backend.head_multiple} up to {backend.head_max}")
    if heads.softcapping is not None and not backend.softcapping:
        found.append("it cannot cap scores")
    if heads.dropout > 0 and not backend.dropout:
        found.append("it has no dropout")
    if heads.sliding_window is not None and not backend.sliding_window:
        found.append("it has no sliding window")
    return found


def installed(package: str) -> bool:
    """find_spec imports what lies above a package in a package."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
