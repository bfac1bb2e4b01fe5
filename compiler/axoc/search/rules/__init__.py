"""Rules: combinations that would break, waste or mislead, each refused with its reason, fix and evidence.

One rule a function. A rule looks at a Combination in its Context and returns why it is refused, or None.
"""

from axoc.search.rules.base import Context, Refusal, Rule, refuse
from axoc.search.rules.catalog import BUILT_IN, enforced_rules
from axoc.search.rules.versions import PINS, Versions

__all__ = ["BUILT_IN", "PINS", "Context", "Refusal", "Rule", "Versions", "enforced_rules", "refuse"]
