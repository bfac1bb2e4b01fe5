"""What the traced code asks of the accelerator: architecture, multiprocessors, library workspaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from axoc_runtime.trace.liveness import rounded

KIB: Final = 1024
HOPPER_WORKSPACE: Final = 4096 * 8 * KIB
OTHER_WORKSPACE: Final = 4096 * KIB * 2 + 16 * KIB * 8
"""Bytes a cuBLAS handle is given for each stream (ATen/cuda/CublasHandlePool.cpp, parseChosenWorkspaceSize): the first
on compute capability 9 to 12."""
LT_WORKSPACE: Final = 1024 * KIB
"""The same for cuBLASLt (ATen/cuda/CUDABlas.cpp, _parseChosenWorkspaceSize)."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """An accelerator as far as memory depends on it."""

    major: int
    """Of the compute capability."""
    multiprocessors: int

    @property
    def blas_workspace_bytes(self) -> int:
        return rounded(HOPPER_WORKSPACE if 9 <= self.major <= 12 else OTHER_WORKSPACE)

    @property
    def prefers_cudnn_attention(self) -> bool:
        """sdp_utils.cpp, check_prefer_cudnn_attention: cuDNN before flash on capability 9.0 and 10.0."""
        return self.major in (9, 10)

    @property
    def cudnn_head(self) -> int:
        """Largest head size of cuDNN's attention in training; 256 was seen on an H100 with torch 2.11."""
        return 256 if self.major == 9 else 128


DEVICES: Final = {
    "h100": Device(major=9, multiprocessors=132),
    "h200": Device(major=9, multiprocessors=132),
    "gh200": Device(major=9, multiprocessors=132),
    "b200": Device(major=10, multiprocessors=148),
    "a100": Device(major=8, multiprocessors=108),
    "a10": Device(major=8, multiprocessors=72),
    "l4": Device(major=8, multiprocessors=58),
    "l40s": Device(major=8, multiprocessors=142),
    "rtx4090": Device(major=8, multiprocessors=128),
    "rtx5090": Device(major=12, multiprocessors=170),
}
"""By the first word of the inventory's name. Source: NVIDIA's architecture white papers."""
STAND_IN: Final = "a100"


def device_named(name: str) -> Device:
    """The accelerator of an inventory, e.g. ``h100-sxm-80gb``; an A100 where it is not known (``known`` says so)."""
    return DEVICES.get(model_of(name), DEVICES[STAND_IN])


def known(name: str) -> bool:
    return model_of(name) in DEVICES


def model_of(name: str) -> str:
    return name.lower().split("-")[0]
