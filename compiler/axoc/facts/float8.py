"""Linear layers that are trained in float8 where ``mixed_precision: fp8`` is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from axoc.facts.families.linears import LinearShape
from axoc.facts.parameters import linear_shapes
from axoc.ir.facts import ModelFacts

MULTIPLE: Final = 16
"""Features: rows of a float8 matrix start at multiples of 16 bytes."""
HARDWARE: Final = (8, 9)
"""Compute capability of the first NVIDIA GPUs that multiply float8 (Ada; Hopper is 9.0)."""


def float8_linears(model: ModelFacts) -> int:
    """How many the runtime finds (runtime/axoc_runtime/kernels/float8.py): all of the blocks, where ``obstacles`` has none."""
    return sum(shape.copies for shape in linear_shapes(model))


def obstacles(model: ModelFacts) -> Iterator[str]:
    """Why the blocks of a model cannot be trained so."""
    if not model.decoder_block or model.family == "generic":
        yield "a model without a family is planned as a Llama, and which of its layers are linear is not known"
    elif model.family == "gpt2":
        yield "transformers gives gpt2 Conv1D layers in the place of linear ones"
    elif any(not shape.quantizable for shape in linear_shapes(model)):
        yield f"the linear layers of {model.family} are a class of their own, which multiplies in its own way"
    for shape in linear_shapes(model):
        if shape.in_features % MULTIPLE or shape.out_features % MULTIPLE:
            yield f"{_sized(shape)}, and a float8 product takes multiples of {MULTIPLE}"


def _sized(shape: LinearShape) -> str:
    return f"{shape.path} has {shape.in_features:,} by {shape.out_features:,} features"
