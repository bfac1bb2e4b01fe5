"""Own callbacks: entry points of the group ``axoc_runtime.callbacks``, each a subclass of transformers' TrainerCallback."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from transformers import TrainerCallback

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure

GROUP: Final = "axoc_runtime.callbacks"


def own_callbacks() -> list[Any]:
    """An instance of each, in the order of their names. Raises RuntimeFailure naming one that cannot be made."""
    return [_made(point) for point in sorted(entry_points(group=GROUP), key=lambda p: p.name)]


def _made(point: EntryPoint) -> Any:
    """A broken plugin is named, not passed over."""
    name = f"the callback plugin {point.name!r} ({point.value})"
    try:
        made = point.load()()
    except Exception as error:  # a plugin may fail in any way
        message = f"{name} cannot be loaded: {type(error).__name__}: {error}"
        raise RuntimeFailure(message, EXIT_INPUTS, "repair or remove the plugin") from error
    if not isinstance(made, TrainerCallback):
        message = f"{name} is no TrainerCallback"
        raise RuntimeFailure(message, EXIT_INPUTS, "subclass transformers.TrainerCallback")
    return made
