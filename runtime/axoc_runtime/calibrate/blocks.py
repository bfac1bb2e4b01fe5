"""A Llama decoder block in plain torch, operation by operation what transformers 5 computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


@dataclass(frozen=True)
class BlockShape:
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int


class RMSNorm(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.to(torch.float32)
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * (wide * scale).to(x.dtype)


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return (x * cos) + (torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin)


class Block(nn.Module):
    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        s = self.shape = shape
        self.before, self.between = RMSNorm(s.hidden), RMSNorm(s.hidden)
        self.q = nn.Linear(s.hidden, s.heads * s.head_dim, bias=False)
        self.k = nn.Linear(s.hidden, s.kv_heads * s.head_dim, bias=False)
        self.v = nn.Linear(s.hidden, s.kv_heads * s.head_dim, bias=False)
        self.o = nn.Linear(s.heads * s.head_dim, s.hidden, bias=False)
        self.gate = nn.Linear(s.hidden, s.intermediate, bias=False)
        self.up = nn.Linear(s.hidden, s.intermediate, bias=False)
        self.down = nn.Linear(s.intermediate, s.hidden, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        x = x + self.attend(self.before(x), cos, sin)
        y = self.between(x)
        added: torch.Tensor = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return added

    def attend(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> Any:
        batch, seq, _ = x.shape
        q, k, v = (p(x).view(batch, seq, -1, self.shape.head_dim).transpose(1, 2) for p in (self.q, self.k, self.v))
        q, k = _turn(q, cos, sin), _turn(k, cos, sin)
        gqa = self.shape.heads != self.shape.kv_heads
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=gqa)
        return self.o(out.transpose(1, 2).contiguous().reshape(batch, seq, -1))
