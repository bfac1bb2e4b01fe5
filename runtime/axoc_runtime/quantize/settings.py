"""What is profiled and how, as the processes hand it to each other, and the digest by which a finished method is known."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

LIBRARIES: Final = ("torch", "transformers", "bitsandbytes", "compressed-tensors", "llmcompressor", "xllamacpp", "gguf")
"""Versions that change figures."""
WRITING: Final = 0.25
"""Share of a method's seconds that text is written for; the perplexity, and how sure it is, is made of the others."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    model: str
    """A folder with config.json and safetensors."""
    model_id: str
    """As the user named it."""
    output: str
    data: str | None
    gpus: int
    """That the model is spread over; 0: the CPU."""
    windows: int
    """Of held-out text; what is resampled to tell how sure a figure is."""
    window_tokens: int
    calibration_rows: int
    calibration_tokens: int
    """Of a row."""
    prompt_tokens: int = 64
    generated_tokens: int = 32
    repeats: int = 3
    """Of the generation that is timed."""
    seconds: float | None = None
    """That a method is measured for, beside loading it; None: until all is read. A CPU has no kernels for some methods, and
    takes a second a token."""
    keep_models: bool = False

    @property
    def read_seconds(self) -> float | None:
        return None if self.seconds is None else self.seconds * (1 - WRITING)

    @property
    def write_seconds(self) -> float | None:
        return None if self.seconds is None else self.seconds * WRITING

    @property
    def view(self) -> Path:
        """The model as exporters want it: the output folder of a finished run."""
        return Path(self.output) / ".work" / "source"

    def digest(self, texts: str, device: str) -> str:
        """Of everything that the figures of a method depend on."""
        given = {k: v for k, v in asdict(self).items() if k not in ("output", "keep_models", "data", "model_id")}
        value = {"settings": given, "texts": texts, "device": device, "libraries": libraries(), "files": self._files()}
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    def _files(self) -> list[Any]:
        """Names, sizes and times: to read 16 GB for a digest would take longer than most methods do."""
        files = (p for p in sorted(Path(self.model).iterdir()) if p.suffix in (".safetensors", ".json"))
        return [(p.name, (s := p.stat()).st_size, s.st_mtime_ns) for p in files]


def libraries() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def read_settings(file: Path) -> Settings:
    return Settings(**json.loads(file.read_text(encoding="utf-8")))
