"""Shapes that are measured: those of published models, and a grid between and around them.

Values are those of the models' config.json files. A profile holds the very shapes of the common models, so that only
token counts, tensor-parallel shards and unlisted models are interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Widths:
    """Widths of a decoder's linear layers. ``fused`` ones are one matrix product in the model's code."""

    hidden: int
    query: int
    key: int
    intermediate: int
    vocabulary: int
    fused_qkv: bool = False
    gate: int = 1
    """Products of ``intermediate`` width that make up the MLP's input side: 1 (each apart) or 2 (gate and up fused)."""

    def linears(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of the block's products."""
        attention = (
            ((self.hidden, self.query + 2 * self.key),)
            if self.fused_qkv
            else ((self.hidden, self.query), (self.hidden, self.key))
        )
        mlp = ((self.hidden, self.gate * self.intermediate), (self.intermediate, self.hidden))
        return (*attention, (self.query, self.hidden), *mlp)


PUBLISHED: Final = {
    "smollm2-135m": Widths(576, 576, 192, 1536, 49152),
    "smollm2-360m": Widths(960, 960, 320, 2560, 49152),
    "qwen2.5-0.5b": Widths(896, 896, 128, 4864, 151936),
    "qwen3-0.6b": Widths(1024, 2048, 1024, 3072, 151936),
    "gemma-3-1b": Widths(1152, 1024, 256, 6912, 262144),
    "llama-3.2-1b": Widths(2048, 2048, 512, 8192, 128256),
    "tinyllama-1.1b": Widths(2048, 2048, 256, 5632, 32000),
    "qwen3-1.7b": Widths(2048, 2048, 1024, 6144, 151936),
    "smollm2-1.7b": Widths(2048, 2048, 2048, 8192, 49152),
    "qwen2.5-1.5b": Widths(1536, 1536, 256, 8960, 151936),
    "gemma-2-2b": Widths(2304, 2048, 1024, 9216, 256000),
    "qwen2.5-3b": Widths(2048, 2048, 256, 11008, 151936),
    "gemma-3-4b": Widths(2560, 2048, 1024, 10240, 262208),
    "qwen3-4b": Widths(2560, 4096, 1024, 9728, 151936),
    "llama-3.2-3b": Widths(3072, 3072, 1024, 8192, 128256),
    "phi-3-mini": Widths(3072, 3072, 3072, 8192, 32064, fused_qkv=True, gate=2),
    "mistral-7b": Widths(4096, 4096, 1024, 14336, 32768),
    "llama-2-7b": Widths(4096, 4096, 4096, 11008, 32000),
    "llama-3-8b": Widths(4096, 4096, 1024, 14336, 128256),
    "qwen3-8b": Widths(4096, 4096, 1024, 12288, 151936),
    "qwen2.5-7b": Widths(3584, 3584, 512, 18944, 152064),
    "gemma-2-9b": Widths(3584, 4096, 2048, 14336, 256000),
    "olmo-2-7b": Widths(4096, 4096, 4096, 11008, 100352),
    "llama-2-13b": Widths(5120, 5120, 5120, 13824, 32000),
    "qwen2.5-14b": Widths(5120, 5120, 1024, 13824, 152064),
    "pythia-410m": Widths(1024, 1024, 1024, 4096, 50304, fused_qkv=True),
    "pythia-1.4b": Widths(2048, 2048, 2048, 8192, 50304, fused_qkv=True),
    "gpt2": Widths(768, 768, 768, 3072, 50257, fused_qkv=True),
    "gpt2-xl": Widths(1600, 1600, 1600, 6400, 50257, fused_qkv=True),
    "falcon-7b": Widths(4544, 4544, 64, 18176, 65024, fused_qkv=True),
    "llama-3-70b": Widths(8192, 8192, 1024, 28672, 128256),
}
LARGE: Final = 5120
"""From this hidden size on, fewer token counts: the products are large enough to have settled."""
GRID: Final = ((512, 512), (1024, 4096), (4096, 1024), (2048, 16384), (16384, 2048), (8192, 8192), (512, 8192))
RANKS: Final = (8, 16, 32, 64, 128)


def linears(*, large: bool) -> list[tuple[int, int]]:
    """(in, out), each once."""
    found = {pair for w in PUBLISHED.values() if (w.hidden >= LARGE) == large for pair in w.linears()}
    return sorted(found)


def heads() -> list[tuple[int, int]]:
    """(hidden, vocabulary), each once; those above 5120 wide are too large to be worth their time."""
    return sorted({(w.hidden, w.vocabulary) for w in PUBLISHED.values() if w.hidden < LARGE})
