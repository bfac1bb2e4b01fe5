"""What a LoRA adapter trains: the layers PEFT picks for a list of targets, and their low-rank elements.

Follows PEFT 0.21.2 on transformers 5.17. There, experts are fused 3-D parameters and routers are modules of their
own, no nn.Linear; PEFT nevertheless adapts both where all-linear or their old names are asked for, and then leaves
real linear layers of the same names (dense and shared-expert MLPs of DeepSeek) alone: peft/utils/
transformers_weight_conversion.py, seen on tiny models of every family in tests/facts/test_against_transformers.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Final

from axoc.errors import Diagnostic, UserError
from axoc.facts.families.linears import LinearShape
from axoc.facts.families.registry import family_named
from axoc.ir.facts import ModelFacts

ALL_LINEAR: Final = "all-linear"
GENERIC: Final = "generic"
ROUTER: Final = "gate"


@dataclass(frozen=True, kw_only=True)
class ExpertTarget:
    """A fused parameter of an MoE block that PEFT adapts, each expert with its own low-rank pair."""

    name: str
    """``gate_up_proj`` | ``down_proj`` | ``gate`` (the router)"""
    in_features: int
    out_features: int
    matrices: int
    """Experts; 1 for the router."""
    rank_factor: int
    """gate_up_proj stands for two projections: PEFT doubles its rank."""
    layers: int

    def elements(self, rank: int) -> int:
        """Trainable elements in the whole model."""
        return self.layers * self.matrices * self.rank_factor * rank * (self.in_features + self.out_features)


def targeted_linears(model: ModelFacts, targets: str | tuple[str, ...]) -> tuple[LinearShape, ...]:
    """The linear layers that PEFT adapts. Raises UserError where a name matches nothing of the model's blocks."""
    shapes = family_named(model.family).linears(model)
    fused = _fused_names(model)
    if targets == ALL_LINEAR:
        return tuple(shape for shape in shapes if shape.name not in fused)
    if isinstance(targets, str):
        return _patterned(model, targets, shapes)
    if model.family == GENERIC and not all(any(_matches(s, t) for s in shapes) for t in targets):
        return shapes  # names of layers that only the run will see: as if all were meant
    names = _names(model, targets, shapes)
    own = [name for name in names if _leaf(name) not in fused]
    return tuple(shape for shape in shapes if any(_matches(shape, name) for name in own))


def targeted_experts(model: ModelFacts, targets: str | tuple[str, ...]) -> tuple[ExpertTarget, ...]:
    """The fused parameters that PEFT adapts; none in a dense model. Raises UserError as ``targeted_linears``."""
    fused = _fused_names(model)
    if not fused:
        return ()
    if targets == ALL_LINEAR:
        wanted = set(fused.values())
    elif isinstance(targets, str):
        raise UserError(_no_pattern(model, targets))
    else:
        given = {_leaf(name) for name in _names(model, targets, family_named(model.family).linears(model))}
        _check_pairs(fused, given)
        wanted = {fused[name] for name in given if name in fused}
    return tuple(target for target in _expert_targets(model) if target.name in wanted)


def lora_parameters(model: ModelFacts, rank: int, targets: str | tuple[str, ...], use_dora: bool = False) -> int:
    """Trainable elements of a LoRA adapter: rank x (in + out) a matrix, and with DoRA one magnitude an output.

    Raises UserError for targets the model lacks, and for DoRA on experts, which PEFT refuses.
    """
    linears, experts = targeted_linears(model, targets), targeted_experts(model, targets)
    if use_dora and experts:
        raise UserError(_no_dora(linears))
    low_rank = sum(s.copies * rank * (s.in_features + s.out_features) for s in linears)
    magnitudes = sum(s.copies * s.out_features for s in linears) if use_dora else 0
    return low_rank + magnitudes + sum(target.elements(rank) for target in experts)


def _patterned(model: ModelFacts, pattern: str, shapes: Sequence[LinearShape]) -> tuple[LinearShape, ...]:
    """Layers whose whole path fits, each with the number of blocks in which it does. PEFT: re.fullmatch."""
    if _fused_names(model):
        raise UserError(_no_pattern(model, pattern))
    fits, prefix = re.compile(pattern).fullmatch, _blocks(model)
    counts = [(s, sum(bool(fits(f"{prefix}.{i}.{s.path}")) for i in range(s.layers))) for s in shapes]
    found = tuple(replace(shape, layers=count) for shape, count in counts if count)
    if not found and model.family == GENERIC:
        return tuple(shapes)
    if not found:
        raise UserError(_fits_nothing(pattern, f"{prefix}.0.{shapes[0].path}"))
    return found


def _blocks(model: ModelFacts) -> str:
    """Path of the decoder's blocks: beside a part that sees it has a name of its own."""
    return family_named(model.family).blocks if model.vision is None else model.vision.blocks


def _fused_names(model: ModelFacts) -> dict[str, str]:
    """Names the projections had before they were fused -> the fused parameter."""
    family = family_named(model.family)
    if model.moe is None or family.expert_projections is None:
        return {}
    gate, up, down = family.expert_projections
    return {gate: "gate_up_proj", up: "gate_up_proj", down: "down_proj", ROUTER: ROUTER}


def _expert_targets(model: ModelFacts) -> tuple[ExpertTarget, ...]:
    moe = model.moe
    assert moe is not None
    hidden, width, layers = model.hidden_size, moe.expert_intermediate_size, model.num_layers - moe.num_dense_layers
    experts = moe.num_experts
    shapes = (
        (ROUTER, hidden, experts, 1, 1),
        ("gate_up_proj", hidden, 2 * width, experts, 2),
        ("down_proj", width, hidden, experts, 1),
    )
    return tuple(
        ExpertTarget(name=name, in_features=i, out_features=o, matrices=n, rank_factor=factor, layers=layers)
        for name, i, o, n, factor in shapes
    )


def _names(model: ModelFacts, targets: tuple[str, ...], shapes: Sequence[LinearShape]) -> tuple[str, ...]:
    """The targets as names, each of which matches something."""
    fused = _fused_names(model)
    unmatched = [t for t in targets if _leaf(t) not in fused and not any(_matches(s, t) for s in shapes)]
    if unmatched:
        raise UserError(*(_no_such_layer(model, target, {s.name for s in shapes} | set(fused)) for target in unmatched))
    return targets


def _check_pairs(fused: dict[str, str], given: set[str]) -> None:
    """Gate and up are one parameter: PEFT refuses one without the other."""
    pair = {name for name, target in fused.items() if target == "gate_up_proj"}
    if len(given & pair) == 1:
        missing = (pair - given).pop()
        message = (
            f"adapter.targets has {(given & pair).pop()} without {missing}: the experts keep both in one parameter"
        )
        raise UserError(Diagnostic(message=message, fix=f"add {missing}"))


def _matches(shape: LinearShape, target: str) -> bool:
    """As PEFT matches target_modules: the whole module path or its end, at a dot."""
    return shape.path == target or shape.path.endswith(f".{target}")


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _no_such_layer(model: ModelFacts, target: str, known: set[str]) -> Diagnostic:
    names = sorted(known)
    close = get_close_matches(target, names, n=1, cutoff=0.6)
    return Diagnostic(
        message=f"adapter.targets: {model.family} models have no layer {target!r} in their blocks to adapt",
        expected="all-linear, or some of " + ", ".join(names),
        fix=f"did you mean {close[0]}?" if close else "use all-linear",
    )


def _fits_nothing(pattern: str, path: str) -> Diagnostic:
    return Diagnostic(
        message=f"adapter.targets: the pattern {pattern!r} fits the path of no linear layer of the blocks",
        expected=f"a regular expression that fits a whole path, e.g. of {path}",
        fix="begin it with .* or name modules in a list",
    )


def _no_pattern(model: ModelFacts, pattern: str) -> Diagnostic:
    """PEFT resolves it to bare names, of every block (peft/utils/transformers_weight_conversion.py)."""
    return Diagnostic(
        message=f"adapter.targets: {pattern!r} is a pattern, and in models with experts as {model.family} PEFT reads only "
        "the names at the ends of the paths it fits",
        expected="all-linear, or a list of module names",
        fix="write the names in brackets, e.g. [q_proj, v_proj]",
        link="https://github.com/huggingface/peft/blob/v0.21.2/src/peft/utils/transformers_weight_conversion.py",
    )


def _no_dora(linears: Sequence[LinearShape]) -> Diagnostic:
    names = ", ".join(dict.fromkeys(s.name for s in linears if s.part == "attention"))
    return Diagnostic(
        message="adapter.use_dora: PEFT has no DoRA for fused experts, and adapter.targets reaches them",
        fix=f"use_dora: false, or targets: [{names}]",
    )
