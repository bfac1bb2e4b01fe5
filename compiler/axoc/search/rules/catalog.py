"""All rules in the order they are asked: the built-in ones, then those of plugins."""

from __future__ import annotations

from functools import cache
from typing import Final

from axoc.errors import Diagnostic, UserError
from axoc.search.rules import adapters, exports, float8, numerics, objectives, parallel, quantized, runtime, vision
from axoc.search.rules.base import Rule

GROUP: Final = "axoc.rules"
BUILT_IN: Final[tuple[Rule, ...]] = (
    *float8.RULES,
    *runtime.RULES,
    *vision.RULES,
    *objectives.RULES,
    *parallel.RULES,
    *numerics.RULES,
    *quantized.RULES,
    *adapters.RULES,
    *exports.RULES,
)


@cache
def enforced_rules() -> tuple[Rule, ...]:
    """Rules that hold for the bundles' versions. A plugin's rule takes the place of a built-in one with its id.

    Raises UserError where a plugin cannot be loaded: a rule that is passed over would refuse nothing.
    """
    plugins = {rule.id: rule for rule in _plugins()}
    own = [plugins.pop(rule.id, rule) for rule in BUILT_IN]
    return tuple(rule for rule in (*own, *plugins.values()) if rule.enforced)


def _plugins() -> list[Rule]:
    from importlib.metadata import entry_points

    found = []
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        try:
            made = point.load()
        except Exception as error:  # a plugin may fail in any way
            raise UserError(_broken(f"{point.name!r} ({point.value}) cannot be loaded: {error}")) from error
        if not isinstance(made, Rule):
            raise UserError(_broken(f"{point.name!r} ({point.value}) is a {type(made).__name__}, not an axoc Rule"))
        found.append(made)
    return found


def _broken(what: str) -> Diagnostic:
    return Diagnostic(message=f"the rule plugin {what}", fix="update or uninstall its package")
