"""requirements.lock: which wheels, with hashes, the bundle's environment is made of."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Final

from axoc.emit.placement import Profile

CUDA_ONLY: Final = re.compile(r"(torch|triton|bitsandbytes|liger-kernel|nvidia-.*|cuda-.*)==")
ROCM_HEADER: Final = """\
# AMD accelerators: no wheel of torch for ROCm is pinned here, because PyPI's are built for CUDA.
# Install torch for ROCm first, then this file, then run launch.sh with --no-install.
"""


def requirements_lock(profile: Profile, *, exports: bool = False, flash_4: bool = False) -> str:
    """The lock of a profile; with ``exports``, what exports are made and checked with too; with ``flash_4``, flash attention 4.
    For ROCm: the CUDA lock without what is built for CUDA."""
    if profile != "rocm":
        more = (["export"] if exports else []) + (["flash"] if flash_4 and profile == "cuda" else [])
        return _packaged(profile) + "".join(_more(profile, part) for part in more)
    entries = split_entries(_packaged("cuda")) + (split_entries(_packaged("cuda-export")) if exports else [])
    return ROCM_HEADER + "".join(entry for entry in entries if not CUDA_ONLY.match(entry))


def _more(profile: str, part: str) -> str:
    return "".join(split_entries(_packaged(f"{profile}-{part}")))


def split_entries(lock: str) -> list[str]:
    """The requirements of a lock, each with its hashes. Comments are left out."""
    lines = (line for line in lock.splitlines(keepends=True) if not line.startswith("#"))
    return re.split(r"(?m)^(?=[A-Za-z0-9])", "".join(lines))[1:]


def _packaged(profile: str) -> str:
    return (files("axoc_templates") / "locks" / f"{profile}.lock").read_text(encoding="utf-8")
