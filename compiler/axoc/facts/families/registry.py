"""Which family reads which model_type. Built-ins are a static table; entry points are asked where it has no answer."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from axoc.errors import Diagnostic, UserError
from axoc.facts.families.base import ModelFamily

GROUP: Final = "axoc.model_families"
_PACKAGE: Final = "axoc.facts.families"

BUILTIN: Final[dict[str, str]] = {
    "llama": f"{_PACKAGE}.llama:LlamaFamily",
    "mistral": f"{_PACKAGE}.mistral:MistralFamily",
    "mixtral": f"{_PACKAGE}.mixtral:MixtralFamily",
    "qwen2": f"{_PACKAGE}.qwen2:Qwen2Family",
    "qwen3": f"{_PACKAGE}.qwen3:Qwen3Family",
    "qwen3_moe": f"{_PACKAGE}.qwen3:Qwen3MoeFamily",
    "gemma2": f"{_PACKAGE}.gemma2:Gemma2Family",
    "gemma3": f"{_PACKAGE}.gemma3:Gemma3Family",
    "phi3": f"{_PACKAGE}.phi3:Phi3Family",
    "falcon": f"{_PACKAGE}.falcon:FalconFamily",
    "gpt_neox": f"{_PACKAGE}.gpt_neox:GptNeoxFamily",
    "olmo2": f"{_PACKAGE}.olmo2:Olmo2Family",
    "deepseek_v2": f"{_PACKAGE}.deepseek:DeepseekV2Family",
    "deepseek_v3": f"{_PACKAGE}.deepseek:DeepseekV3Family",
    "gpt2": f"{_PACKAGE}.gpt2:Gpt2Family",
    "generic": f"{_PACKAGE}.generic:GenericFamily",
}
"""Family name -> ``module:Class``: also what pyproject.toml declares under the entry point group."""

MODEL_TYPES: Final[dict[str, str]] = {name: name for name in BUILTIN if name != "generic"} | {"gemma3_text": "gemma3"}
"""transformers' model_type -> family name."""


def family_named(name: str, *, scan: bool = False) -> ModelFamily:
    """The family of that name; with ``scan`` a plugin of the same name wins over the built-in one.

    Raises UserError with the names that exist.
    """
    found = _plugins().get(name) if scan or name not in BUILTIN else None
    if found is None and name not in BUILTIN:
        raise UserError(_unknown(name))
    return found or _load(BUILTIN[name])


def family_for(model_type: str | None, *, scan: bool = False) -> ModelFamily:
    """The family that reads this model_type; the generic one where none does. ``scan`` as in ``family_named``."""
    builtin = MODEL_TYPES.get(model_type or "")
    if scan or (builtin is None and model_type):
        for plugin in _plugins().values():
            if model_type in plugin.model_types:
                return plugin
    return _load(BUILTIN[builtin or "generic"])


def family_names() -> tuple[str, ...]:
    """Built-in and installed families, sorted."""
    return tuple(sorted({*BUILTIN, *_plugins()}))


def _load(target: str) -> ModelFamily:
    module, _, attribute = target.partition(":")
    family: ModelFamily = getattr(import_module(module), attribute)()
    return family


def _plugins() -> dict[str, ModelFamily]:
    """Families that other distributions declare, by name; a broken one is named, not passed over."""
    from importlib.metadata import entry_points

    found: dict[str, ModelFamily] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        if BUILTIN.get(point.name) == point.value:
            continue
        try:
            found[point.name] = point.load()()
        except Exception as error:
            message = f"the model family plugin {point.name!r} ({point.value}) cannot be loaded: {error}"
            raise UserError(Diagnostic(message=message, fix="update or uninstall its package")) from error
    return found


def _unknown(name: str) -> Diagnostic:
    from difflib import get_close_matches

    names = family_names()
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    return Diagnostic(
        message=f"model.type {name!r} is not a model family",
        expected="auto, " + ", ".join(names),
        fix=f"did you mean {close[0]}?" if close else "leave it on auto: config.json names the family",
    )
