"""Plan: the chosen candidate with its estimate, the reason for every value, runners-up and refusals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from axoc.ir.candidate import Candidate
from axoc.ir.estimate import Estimate
from axoc.ir.facts import ClusterFacts, DataFacts, ModelFacts
from axoc.ir.margin import Margin
from axoc.ir.request import PlanRequest

DISK_BEGINS: Final = "disk: "
"""Of each warning of what the disk holds beside what is planned; axoc explain shows them below the ledger."""
UNCOUNTED: Final = DISK_BEGINS + "prepared rows"
"""Of the one that every plan without a lock has: the views say it beside the sum, not among what is to be looked at."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    field: str
    """Dotted spec name, e.g. ``distributed.type``."""
    value: Any
    because: str
    source: str
    """``user`` | ``default`` | ``rule:ID`` | ``search``"""


@dataclass(frozen=True, kw_only=True)
class Scored:
    candidate: Candidate
    estimate: Estimate


@dataclass(frozen=True, kw_only=True)
class Rejection:
    candidate: Candidate
    rule: str
    """A rule's id, or ``memory``."""
    reason: str
    fix: str
    link: str | None
    estimate: Estimate | None = None


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Steps that are decided once the batch is: none is left to the runtime."""

    total_steps: int | None
    eval_steps: int | None
    """None: once an epoch, at the epoch's end."""
    save_steps: int | None
    parameters: int
    trainable_parameters: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    request: PlanRequest
    spec_digest: str
    """``sha256:...`` of the spec's text."""
    model: ModelFacts
    cluster: ClusterFacts
    data: tuple[DataFacts, ...]
    chosen: Scored
    schedule: Schedule
    decisions: tuple[Decision, ...]
    candidates: tuple[Scored, ...]
    """The chosen one first, then runners-up in rank order."""
    rejections: tuple[Rejection, ...]
    warnings: tuple[str, ...]
    fitting: int | None = None
    """How many candidates fit, where not all are listed."""
    refused: int | None = None
    """How many candidates were refused or do not fit, where not all are listed."""
    objective: str = "time"
    """time | cost | trade-off: what candidates are ranked by."""
    pareto: tuple[Scored, ...] = ()
    """Candidates that none beats in time, money and device memory at once, best by the objective first."""
    margin: Margin | None = None
    """How far the chosen candidate is from not fitting."""

    @property
    def candidates_count(self) -> int:
        return len(self.candidates) if self.fitting is None else self.fitting

    @property
    def rejections_count(self) -> int:
        return len(self.rejections) if self.refused is None else self.refused


@dataclass(frozen=True, kw_only=True)
class NoPlan:
    """No candidate fits. The nearest ones with their shortfall, and the smallest change that would fit."""

    request: PlanRequest
    spec_digest: str
    rejections: tuple[Rejection, ...]
    nearest: tuple[Rejection, ...]
    smallest_change: str | None
    """Tried: with it a plan fits. None where no single one helps."""
    warnings: tuple[str, ...] = ()
