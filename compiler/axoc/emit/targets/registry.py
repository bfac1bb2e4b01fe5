"""Which class emits which target. A plugin of a built-in's name takes its place."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from axoc.emit.targets.base import SHELL, Target, text_file
from axoc.errors import Diagnostic, UserError
from axoc.facts.targets import BUILTIN, GROUP, plugin_targets
from axoc.ir.bundle import BundleFile
from axoc.ir.plan import Plan


def target_files(plan: Plan) -> list[BundleFile]:
    """All files of the plan's target, its shell among them. Raises UserError."""
    target = target_named(plan.request.target.type)
    return [text_file(SHELL, target.shell()), *target.files(plan)]


def target_named(name: str) -> Target:
    """Raises UserError for one that is not installed, or a plugin that cannot be loaded."""
    if name in plugin_targets():
        return _plugin(name)
    if name not in BUILTIN:
        known = ", ".join(sorted({*BUILTIN, *plugin_targets()}))
        fix = f"install the package that brings {name}, or take another target"
        raise UserError(Diagnostic(message=f"the target {name} is not installed", expected=known, fix=fix))
    module, _, attribute = BUILTIN[name].partition(":")
    target: Target = getattr(import_module(module), attribute)()
    return target


def _plugin(name: str) -> Target:
    """A broken one is named, not passed over."""
    (point,) = [p for p in entry_points(group=GROUP, name=name) if BUILTIN.get(name) != p.value][:1]
    try:
        target = point.load()()
    except Exception as error:
        message = f"the target {name} of {point.value} cannot be loaded: {error}"
        raise UserError(Diagnostic(message=message, fix="repair or uninstall that package")) from None
    if not isinstance(target, Target):
        raise UserError(Diagnostic(message=f"{point.value} is no axoc.emit.targets.base.Target"))
    return target
