"""What becomes of a foreign key: a field of the spec, or a reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Effect = Literal["moved", "left out", "trains otherwise", "refused", "read with others"]
Convert = Callable[[Any], Any]

NOTHING: Final = object()
"""What a converter gives where the value needs no field: the spec's default says the same."""


class Untranslatable(Exception):
    """The value is of a kind that the field cannot hold; the text says what was expected."""


@dataclass(frozen=True, kw_only=True)
class Key:
    effect: Effect
    field: str = ""
    """Dotted, of the spec, where the value moves."""
    convert: Convert | None = None
    reason: str = ""


def to(field: str, convert: Convert | None = None) -> Key:
    return Key(effect="moved", field=field, convert=convert)


def out(reason: str) -> Key:
    """Changes nothing in what is trained."""
    return Key(effect="left out", reason=reason)


def otherwise(reason: str) -> Key:
    """Left out too, but then the run trains otherwise than there."""
    return Key(effect="trains otherwise", reason=reason)


def refuse(reason: str) -> Key:
    """The run would be another one: nothing is written."""
    return Key(effect="refused", reason=reason)


def with_others() -> Key:
    """Read by the tool's own function, together with other keys."""
    return Key(effect="read with others")


def each(key: Key, *names: str) -> dict[str, Key]:
    return dict.fromkeys(names, key)


# --- values


def number(value: Any) -> float:
    """YAML 1.1 takes 5e-5 for text."""
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise Untranslatable("a number") from None


def whole(value: Any) -> int:
    found = number(value)
    if found != int(found):
        raise Untranslatable("a whole number")
    return int(found)


def positive(value: Any) -> Any:
    """A count, of which zero and less mean that it is off."""
    found = whole(value)
    return found if found > 0 else NOTHING


def flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    found = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}.get(str(value).lower())
    if found is None:
        raise Untranslatable("true or false")
    return found


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise Untranslatable("text")
    return value


def word(known: Mapping[str, Any]) -> Convert:
    """One of the words, whatever its case."""

    def convert(value: Any) -> Any:
        found = known.get(str(value).lower().removeprefix("schedulertype."), NOTHING if value in ("", None) else None)
        if found is None:
            raise Untranslatable("one of " + ", ".join(known))
        return found

    return convert


def recomputed(value: Any) -> Any:
    """gradient_checkpointing: true, false, or axolotl's unsloth and offload."""
    return "full" if value in ("unsloth", "offload", "offload_disk") or flag(value) else "none"


SCHEDULERS: Final = {
    name: name
    for name in (
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
    )
}
OPTIMIZERS: Final = {
    "adamw_torch": "adamw_torch",
    "adamw_torch_fused": "adamw_torch_fused",
    "adamw_hf": "adamw_torch",
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "adamw_bnb_8bit": "adamw_bnb_8bit",
    "adamw_torch_8bit": "adamw_bnb_8bit",
    "ao_adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_32bit": "adamw_torch_fused",
    "paged_adamw": "adamw_torch_fused",
    "adafactor": "adafactor",
    "sgd": "sgd",
    "muon": "muon",
}
"""torchao's 8-bit AdamW becomes bitsandbytes': the same states; a paged one lies on the device."""
ATTENTION: Final = {
    "xformers": "auto",
    "flash_attention_2": "auto",
    "flash_attention_3": "auto",
    "flash_attention_4": "auto",
    "flash_attn": "auto",
    "fa2": "auto",
    "fa3": "auto",
    "auto": "auto",
    "sdpa": "sdpa",
    "eager": "eager",
    "flex_attention": "flex",
    "flex": "flex",
}
"""Flash attention is what SDPA runs where rows are not packed: left to the planner."""


def attention(value: Any) -> Any:
    """A kernel of the hub is a flash attention too."""
    return "auto" if str(value).startswith("kernels-community/") else word(ATTENTION)(value)


TRACKERS: Final = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


def trackers(value: Any) -> Any:
    """report_to: one, several, all or none."""
    wanted = value if isinstance(value, list) else [value]
    if wanted in (["none"], ["all"], [None]):
        return NOTHING if wanted == ["all"] else []
    unknown = [w for w in wanted if w not in TRACKERS]
    if unknown:
        raise Untranslatable("of " + ", ".join(TRACKERS))
    return list(wanted)
