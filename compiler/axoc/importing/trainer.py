"""Settings of transformers' Trainer that mean something only together, and TRL's command-line files."""

from __future__ import annotations

from typing import Any, Final

from axoc.importing.distributed import deepspeed_file, fsdp
from axoc.importing.keys import Untranslatable, flag, number, whole
from axoc.importing.trainer_keys import TRL
from axoc.importing.translate import Draft, Tool

NF4: Final = {"method": "nf4"}


def warmup(draft: Draft) -> None:
    """Steps become a share where the run's steps are set; below one they are a share already (transformers 5)."""
    steps = draft.get("warmup_steps")
    if steps in (None, 0) or "warmup_ratio" in draft.spec.get("training", {}):
        return
    total = draft.spec.get("training", {}).get("max_steps")
    share = number(steps)
    if share >= 1:
        if not total:
            reason = (
                "a share of the steps is what a spec says, and the run's steps are not set: warmup_ratio is its default"
            )
            draft.note("warmup_steps", "trains otherwise", reason=reason)
            return
        share = min(share / total, 0.99)
    draft.moved("warmup_steps", "training.warmup_ratio", share)


def schedules(draft: Draft) -> None:
    """Steps between evaluations and checkpoints; an epoch's end, or a share, is left to the planner."""
    for what, strategies in (("eval", ("eval_strategy", "evaluation_strategy")), ("save", ("save_strategy",))):
        strategy = next((str(draft.get(s)) for s in strategies if draft.get(s) not in (None, False)), None)
        steps = draft.get(f"{what}_steps")
        for name in strategies:
            if draft.get(name) not in (None, False):
                draft.note(name, "left out", reason="steps between them are set, or left to the planner")
        if strategy in ("no", "epoch") and steps:
            draft.note(f"{what}_steps", "left out", reason=f"with {what}_strategy {strategy} it says nothing")
        elif steps and number(steps) >= 1:
            draft.moved(f"{what}_steps", f"training.{what}_steps", int(number(steps)))
        elif steps:
            draft.note(
                f"{what}_steps",
                "left out",
                reason="a share of the steps: axoc takes a quarter of a run of known length",
            )


def precision(draft: Draft) -> None:
    """bf16 and fp16 are autocast's; pure_bf16 is of the weights."""
    on = {name: _on(draft.get(name)) for name in ("bf16", "fp16", "pure_bf16")}
    if on["pure_bf16"]:
        draft.moved("pure_bf16", "model.dtype", "bfloat16")
        draft.put("distributed.mixed_precision", "bf16")
    for name in ("bf16", "fp16"):
        if on[name] and "mixed_precision" not in draft.spec.get("distributed", {}):
            draft.moved(name, "distributed.mixed_precision", name)


def _on(value: Any) -> bool:
    """``auto`` is bf16 where the device has it, as all that axoc plans for do."""
    return value == "auto" or (value is not None and flag(value))


def spread(draft: Draft) -> None:
    if draft.get("deepspeed"):
        deepspeed_file(draft, "deepspeed")
    elif draft.get("fsdp"):
        words = draft.get("fsdp")
        config = draft.get("fsdp_config") or {}
        names = words if isinstance(words, list) else str(words).split()
        kind = next((n.upper() for n in names if n in ("full_shard", "shard_grad_op", "no_shard")), None)
        fsdp(
            draft,
            "fsdp",
            offload="offload" in names,
            sharding=kind,
            checkpointing=config.get("activation_checkpointing"),
        )


def packing(draft: Draft) -> None:
    """Left to the planner where it is on: what is packed, and whether it can be, is its choice."""
    key = "sample_packing" if "sample_packing" in draft.values else "packing"
    if draft.get(key) is None:
        return
    if flag(draft.get(key)):
        draft.note(
            key,
            "trains otherwise",
            reason="packed where the runtime can; until then a row is one document, and a step smaller",
        )
    else:
        draft.note(key, "moved", field="dataset.packing", became=False)
        section = draft.spec.get("dataset", {})
        for entry in section if isinstance(section, list) else [draft.spec.setdefault("dataset", {})]:
            entry["packing"] = False


def length(draft: Draft) -> None:
    """max_steps decides where both are set (TrainingArguments)."""
    training = draft.spec.get("training", {})
    if "max_steps" in training and training.pop("epochs", None) is not None:
        key = next(n for n in draft.notes if n.field == "training.epochs")
        draft.notes.remove(key)
        draft.note(key.key, "left out", reason="max_steps says how long to train")


def of_pairs(draft: Draft, default: str = "right") -> None:
    """What becomes of long rows, and whose tokens are learned, are settings of texts: pairs and prompts have one way.
    ``default``: what the tool makes of long rows."""
    section = draft.spec.setdefault("dataset", {})
    entries = section if isinstance(section, list) else [section]
    if draft.spec.get("training", {}).get("objective", "sft") in ("sft", "pretrain"):
        if default != "right" and any("truncation" not in entry for entry in entries):
            for entry in entries:
                entry.setdefault("truncation", default)
            draft.note("(long rows' default)", "moved", field="dataset.truncation", became=default)
        return
    for name in ("truncation", "train_on"):
        for entry in entries:
            entry.pop(name, None)
        for note in [n for n in draft.notes if n.field == f"dataset.{name}"]:
            draft.notes.remove(note)
            reason = "pairs and prompts are cut on the right, and learned by their answers"
            draft.note(note.key, "trains otherwise", reason=reason)


ARGUMENT_DEFAULTS: Final = {
    "dataset.validation_split": 0.0,
    "training.epochs": 3.0,
    "training.learning_rate": 5e-5,
    "training.lr_scheduler": "linear",
    "training.warmup_ratio": 0.0,
    "training.micro_batch_size": 8,
    "training.gradient_accumulation_steps": 1,
    "training.gradient_checkpointing": "none",
}
"""transformers 5.17, TrainingArguments."""
COMBINED_ARGUMENTS: Final = (length, packing, warmup, schedules, precision, spread)


# --- TRL


def of_trl(draft: Draft) -> None:
    adapter(draft, on=bool(draft.get("use_peft")))
    if name := draft.get("dataset_name"):
        draft.moved("dataset_name", "dataset.path", str(name))
    objective(draft)
    learned(draft)
    dtype = str(draft.get("dtype") or draft.get("torch_dtype") or "").removeprefix("torch.")
    if dtype in ("float32", "bfloat16", "float16"):
        draft.moved("dtype" if draft.get("dtype") else "torch_dtype", "model.dtype", dtype)
    if draft.get("attn_implementation"):
        reason = "the planner chooses: SDPA runs flash attention's kernels where rows are not packed"
        draft.note("attn_implementation", "left out", reason=reason)


def learned(draft: Draft) -> None:
    """Which tokens have a loss. Where TRL is not told it goes by the rows: all of messages, of prompts the completion."""
    if draft.spec.get("training", {}).get("objective", "sft") != "sft":
        return
    if _set(draft, "completion_only_loss"):
        draft.moved("completion_only_loss", "dataset.train_on", "last_turn")
    elif _set(draft, "assistant_only_loss"):
        draft.moved("assistant_only_loss", "dataset.train_on", "assistant")
    elif draft.get("completion_only_loss") is not None:
        draft.moved("completion_only_loss", "dataset.train_on", "all")
    else:
        reason = "where rows are messages TRL learns every token: dataset.train_on: all does"
        draft.note(
            "assistant_only_loss", "trains otherwise", field="dataset.train_on", became="assistant", reason=reason
        )


def adapter(draft: Draft, *, on: bool) -> None:
    """LoRA and bitsandbytes, by PEFT's names."""
    if not on:
        return
    wanted: dict[str, Any] = {"type": "lora"}
    names = {
        "lora_r": "rank",
        "lora_alpha": "alpha",
        "lora_dropout": "dropout",
        "use_rslora": "use_rslora",
        "use_dora": "use_dora",
    }
    for key, field in names.items():
        value = draft.get(key)
        if value is not None:
            wanted[field] = value if isinstance(value, bool) else whole(value) if field == "rank" else number(value)
            draft.note(key, "moved", field=f"adapter.{field}", became=wanted[field])
    for key, field in (("lora_target_modules", "targets"), ("lora_modules_to_save", "modules_to_save")):
        if value := draft.get(key):
            wanted[field] = (
                "all-linear"
                if value in ("all-linear", "all", ["all-linear"])
                else value
                if isinstance(value, list)
                else [value]
            )
            draft.note(key, "moved", field=f"adapter.{field}", became=wanted[field])
    draft.put("adapter", wanted)
    quantized(draft)


def quantized(draft: Draft) -> None:
    if _set(draft, "load_in_4bit"):
        method = dict(NF4) if draft.get("bnb_4bit_quant_type") in (None, "nf4") else {"method": "fp4"}
        draft.moved("load_in_4bit", "model.quantization", method)
    elif _set(draft, "load_in_8bit"):
        draft.moved("load_in_8bit", "model.quantization", "int8")


def _set(draft: Draft, key: str) -> bool:
    value = draft.get(key)
    try:
        return value is not None and flag(value)
    except Untranslatable:
        return False


def objective(draft: Draft) -> None:
    """DPO and its relatives are told by the command that runs the file, or by what only they have."""
    if draft.get("beta") is not None:
        losses = {"sigmoid": "dpo", "ipo": "ipo", "simpo": "simpo"}
        loss = str(draft.get("loss_type") or "sigmoid")
        if loss not in losses:
            draft.note("loss_type", "trains otherwise", reason=f"{loss} is no loss of axoc's: the objective is dpo")
        draft.moved("beta", "training.preference.beta", number(draft.get("beta")))
        draft.put("training.objective", losses.get(loss, "dpo"))


TRL_DEFAULTS: Final = ARGUMENT_DEFAULTS | {
    "dataset.max_seq_length": 1024,
    "training.learning_rate": 2e-5,
    "training.gradient_checkpointing": "full",
}
"""trl 1.16, SFTConfig."""
TOOL: Final = Tool(name="trl", keys=TRL, defaults=TRL_DEFAULTS, combine=(*COMBINED_ARGUMENTS, of_trl, of_pairs))
