"""What a rule is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from axoc.cost.scenario import Scenario
from axoc.ir.request import PlanRequest
from axoc.search.rules.versions import Versions
from axoc.search.space import Combination


@dataclass(frozen=True, kw_only=True)
class Context:
    request: PlanRequest
    scenario: Scenario

    @property
    def capability(self) -> tuple[int, int]:
        return self.scenario.cluster.accelerator.compute_capability

    @property
    def is_nvidia(self) -> bool:
        return self.scenario.cluster.accelerator.vendor == "nvidia"


@dataclass(frozen=True, kw_only=True)
class Rule:
    id: str
    """Stable: it stands in plans and in pull requests."""
    check: Callable[[Context, Combination], str | None]
    """The reason for refusing, or None."""
    fix: str
    """The smallest change of the spec that avoids it."""
    link: str | None
    versions: tuple[Versions, ...] = ()
    """Where it fails; none: in the nature of the thing, whatever the version."""

    @property
    def enforced(self) -> bool:
        """False where the bundles' versions no longer fail: the rule then only says until when it applied."""
        return not self.versions or any(v.pinned for v in self.versions)

    @property
    def applies_to(self) -> str:
        return ", ".join(map(str, self.versions)) or "all"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    rule: Rule
    reason: str


def refuse(rules: Iterable[Rule], context: Context, combination: Combination) -> Refusal | None:
    """The first rule that refuses; rules are ordered from the most to the least fundamental."""
    for rule in rules:
        reason = rule.check(context, combination)
        if reason is not None:
            return Refusal(rule=rule, reason=reason)
    return None
