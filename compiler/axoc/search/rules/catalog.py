"""All built-in rules, in the order they are asked."""

from __future__ import annotations

from typing import Final

from axoc.search.rules import numerics, parallel, quantized, runtime
from axoc.search.rules.base import Rule

RULES: Final[tuple[Rule, ...]] = (*runtime.RULES, *parallel.RULES, *numerics.RULES, *quantized.RULES)
