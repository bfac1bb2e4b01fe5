"""What an export format is: a plugin writes a folder, and names the consumer that reads it back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from axoc_runtime.exports.source import Source

Logits = NDArray[np.float32]
NONE: Final = "none"
"""The variant without quantization."""


class Consumer(Protocol):
    """A library with the exported model loaded."""

    name: str
    """With its version, e.g. ``onnxruntime 1.32.0``."""

    def logits(self, ids: Sequence[int]) -> Logits:
        """[tokens, vocabulary] of one sequence."""


@dataclass(frozen=True, kw_only=True)
class NotChecked:
    """No consumer is here."""

    reason: str


class CannotExport(Exception):
    """What this model or this machine cannot be exported to or with, and the smallest fix."""

    def __init__(self, message: str, fix: str | None = None) -> None:
        super().__init__(message)
        self.fix = fix


class Exporter(ABC):
    """One format. Made without arguments."""

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    """Import names that writing and checking need, beyond the runtime's own."""
    variants: ClassVar[tuple[str, ...]] = (NONE,)
    """Quantizations that can be asked for, as ``format:variant``."""
    causal_only: ClassVar[bool] = True
    """False where a reward model's head can be written as well."""

    def packages_of(self, variant: str) -> tuple[str, ...]:
        return self.packages

    def refuses(self, source: Source, variant: str) -> str | None:
        """Why this model cannot be written so. Asked of every format before anything is written."""
        return None

    def bytes_needed(self, source: Source, variant: str) -> int:
        """Of disk, at the most while writing."""
        return 2 * source.weight_bytes

    @abstractmethod
    def write(self, source: Source, folder: Path, variant: str) -> tuple[str, ...]:
        """Fills ``folder``. Notes that a user must know. Raises CannotExport."""

    @abstractmethod
    def consumer(self, source: Source, folder: Path, variant: str) -> Consumer | NotChecked:
        """The reader of what was written. Raises CannotExport where it reads something else."""

    def usage(self, source: Source, variant: str) -> str:
        """A command or a few lines of code that load the folder, for the model card."""
        return ""
