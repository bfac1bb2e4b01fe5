"""Rules: combinations that would break, waste or mislead, each refused with its reason, fix and evidence.

One rule a function. A rule looks at a Combination in its Context and returns why it is refused, or None.
"""

from axoc.search.rules.base import Context, Refusal, Rule, refuse
from axoc.search.rules.catalog import RULES

__all__ = ["RULES", "Context", "Refusal", "Rule", "refuse"]
