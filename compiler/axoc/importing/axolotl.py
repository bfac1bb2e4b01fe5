"""axolotl's YAML: what its keys say together."""

from __future__ import annotations

from typing import Any, Final

from axoc.errors import UserError
from axoc.importing.axolotl_keys import KEYS
from axoc.importing.distributed import deepspeed_file, fsdp
from axoc.importing.keys import flag, number, whole
from axoc.importing.trainer import adapter, length, of_pairs, packing, precision, schedules, warmup
from axoc.importing.translate import Draft, Tool, problem

OBJECTIVES: Final = {"dpo": "dpo", "ipo": "ipo", "kto": "kto", "orpo": "orpo", "simpo": "simpo", "grpo": "grpo"}
ASSISTANTS: Final = frozenset({"assistant", "gpt", "model", "bot", "ai"})
ENDS: Final = ("turn", True)
"""Of ``train_on_eos``: the end of every turn that is trained on, as axoc has it."""
TYPES: Final = {
    "alpaca": "alpaca",
    "sharegpt": "sharegpt",
    "chat_template": "auto",
    "completion": "completion",
    "input_output": "auto",
    "pretrain": "completion",
}
DATASET_LEFT: Final = {
    "name": "a configuration on the hub has no name in a spec: the default one is read",
    "split": "all of the file is read, and dataset.validation_split of it held out",
    "shards": "all of it is read",
    "revision": "the lock pins data by its digest",
}


def _adapter(draft: Draft) -> None:
    kind = draft.get("adapter")
    if not kind:
        draft.put("adapter", "none")
        if draft.get("unfrozen_parameters"):
            message = "unfrozen_parameters trains parts of the model: axoc trains all weights, or an adapter"
            raise UserError(
                problem(draft, "unfrozen_parameters", message, fix="remove it to train all, or set adapter: lora")
            )
        return
    if kind not in ("lora", "qlora"):
        raise UserError(problem(draft, "adapter", f"adapter: {kind} is not among axoc's", expected="lora or qlora"))
    draft.note("adapter", "moved", field="adapter.type", became="lora")
    for old, name in (("peft_use_rslora", "use_rslora"), ("peft_use_dora", "use_dora")):
        if draft.get(old) is not None:
            draft.values[name] = draft.values[old]
    if kind == "qlora" and draft.get("load_in_8bit") in (None, False):
        draft.values.setdefault("load_in_4bit", True)
        draft.values["load_in_4bit"] = True
    adapter(draft, on=True)
    if draft.get("lora_target_linear") and not draft.get("lora_target_modules"):
        draft.moved("lora_target_linear", "adapter.targets", "all-linear")


def _data(draft: Draft) -> None:
    """Datasets, each with what all share. A split of the data serves for evaluation."""
    key = "datasets" if draft.get("datasets") else "pretraining_dataset"
    entries = draft.get(key)
    if not entries:
        return
    if isinstance(entries, str):
        entries = [{"path": entries}]
    if key == "pretraining_dataset":
        draft.put("training.objective", "pretrain")
    shared = draft.spec.pop("dataset", {})
    size = draft.get("val_set_size")
    if size is not None:
        shared["validation_split"] = number(size)
        if number(size) >= 1:
            raise UserError(
                problem(draft, "val_set_size", "val_set_size as a number of rows", expected="a share below 1")
            )
        draft.note("val_set_size", "moved", field="dataset.validation_split", became=number(size))
    _learned(draft, shared, draft.get("roles_to_train"), "roles_to_train")
    _ends(draft)
    made = [_entry(draft, key, i, e) | shared for i, e in enumerate(entries) if isinstance(e, dict)]
    for index, entry in enumerate(e for e in entries if isinstance(e, dict)):
        _learned(draft, made[index], entry.get("roles_to_train"), f"{key}[{index}].roles_to_train")
    draft.put("dataset", made[0] if len(made) == 1 else made)
    paths = [e.get("path") for e in made]
    draft.note(key, "moved", field="dataset", became=paths[0] if len(paths) == 1 else paths)
    if draft.get("test_datasets"):
        draft.note(
            "test_datasets",
            "trains otherwise",
            reason="a split of the training data is evaluated on: dataset.validation_split",
        )


def _learned(draft: Draft, entry: dict[str, Any], roles: Any, shown: str) -> None:
    """Whose turns are trained on. Loss on some roles beside the assistant is loss on all in a spec."""
    if not roles:
        return
    draft.places.setdefault(shown, draft.places.get(shown.partition("[")[0], (1, 1)))
    if {str(r).lower() for r in (roles if isinstance(roles, list) else [roles])} <= ASSISTANTS:
        draft.note(shown, "left out", reason="loss is on the assistant's turns, as dataset.train_on has it")
        return
    entry["train_on"] = "all"
    reason = "dataset.train_on: all learns every token, those of other roles and of the template among them"
    draft.note(shown, "trains otherwise", field="dataset.train_on", became="all", reason=reason)


def _ends(draft: Draft) -> None:
    for key in ("train_on_eos", "train_on_eot"):
        value = draft.get(key)
        if value in ENDS:
            draft.note(key, "left out", reason="the end of each turn that is trained on is learned with it")
        elif value is not None:
            draft.note(
                key, "trains otherwise", reason="the end of each turn that is trained on is learned, and no other"
            )


def _entry(draft: Draft, key: str, index: int, entry: dict[str, Any]) -> dict[str, Any]:
    """One dataset: its path, or its file where the path is a loader's name (json, csv, parquet)."""
    files = entry.get("data_files")
    first = files[0] if isinstance(files, list) and files else files
    path = first if first and entry.get("path") in ("json", "csv", "parquet", "text", "arrow") else entry.get("path")
    made: dict[str, Any] = {"path": str(path)}
    kind = entry.get("type")
    if isinstance(kind, str):
        name = kind.split(".")[0].split(":")[0]
        made["type"] = TYPES.get(name, "auto")
        if made["type"] == "completion":
            made["truncation"] = "split"  # as axolotl does with text, whatever it does with rows
        if name not in TYPES:
            _left(draft, key, index, "type", f"{kind} is seen from the columns, or named in dataset.type")
    elif kind is not None:
        _left(draft, key, index, "type", "an own format is a plugin: docs/plugins.md")
    for name, value in entry.items():
        if name in ("path", "type", "data_files", "ds_type", "roles_to_train") or value in (None, False, "", []):
            continue
        _left(
            draft,
            key,
            index,
            name,
            DATASET_LEFT.get(name, "the format reads its columns by name: dataset.options, or a plugin"),
        )
    return made


def _long_rows(draft: Draft) -> None:
    """Dropped, unless the file says otherwise."""
    of_pairs(draft, default="drop")


def _left(draft: Draft, key: str, index: int, name: str, reason: str) -> None:
    shown = f"{key}[{index}].{name}"
    draft.places[shown] = draft.places.get(key, (1, 1))
    draft.note(shown, "trains otherwise" if name in ("name", "shards") else "left out", reason=reason)


def _objective(draft: Draft) -> None:
    if draft.get("process_reward_model"):
        raise UserError(
            problem(draft, "process_reward_model", "rewards of single steps are not among axoc's objectives")
        )
    if draft.get("reward_model"):
        draft.moved("reward_model", "training.objective", "reward")
    kind = draft.get("rl")
    if not kind:
        return
    if kind not in OBJECTIVES:
        raise UserError(
            problem(draft, "rl", f"rl: {kind} is not among axoc's objectives", expected=", ".join(OBJECTIVES))
        )
    draft.moved("rl", "training.objective", OBJECTIVES[kind])
    fields = {"rl_beta": "beta", "orpo_alpha": "beta", "simpo_gamma": "simpo_gamma", "dpo_label_smoothing": "label_smoothing",
              "kto_desirable_weight": "desirable_weight", "kto_undesirable_weight": "undesirable_weight"}  # fmt: skip
    for key, field in fields.items():
        if draft.get(key) is not None:
            draft.moved(key, f"training.preference.{field}", number(draft.get(key)))
    _sampling(draft)


def _sampling(draft: Draft) -> None:
    """GRPO's part of TRL's settings."""
    fields = {"num_generations": ("generations", whole), "max_completion_length": ("max_completion_length", whole),
              "temperature": ("temperature", number), "beta": ("beta", number)}  # fmt: skip
    for key in [k for k in draft.values if k.startswith("trl.")]:
        name, value = key.removeprefix("trl."), draft.get(key)
        if name in fields and value is not None:
            field, convert = fields[name]
            draft.moved(key, f"training.grpo.{field}", convert(value))
        elif name in ("reward_funcs", "reward_weights"):
            reason = "reward functions are entry points (axoc_runtime.rewards), named in training.grpo.rewards"
            draft.note(key, "trains otherwise", reason=reason)
        elif value not in (None, False):
            draft.note(key, "left out", reason="generation is the runtime's own")


def _spread(draft: Draft) -> None:
    if draft.get("deepspeed"):
        deepspeed_file(draft, "deepspeed")
    elif draft.get("fsdp") or any(k.startswith("fsdp_config.") for k in draft.values) or draft.get("dp_shard_size"):
        config = {
            k.removeprefix("fsdp_config.").removeprefix("fsdp_"): v
            for k, v in draft.values.items()
            if k.startswith("fsdp_config.")
        }
        key = next(k for k in draft.values if k.startswith("fsdp") or k == "dp_shard_size")
        words = draft.get("fsdp") or []
        offload = config.get("offload_params") or "offload" in words
        fsdp(
            draft,
            key,
            offload=offload,
            sharding=config.get("sharding_strategy"),
            checkpointing=config.get("activation_checkpointing"),
        )


def _per_epoch(draft: Draft) -> None:
    for key, field in (("evals_per_epoch", "eval_steps"), ("saves_per_epoch", "save_steps")):
        if draft.get(key):
            reason = f"training.{field} is left auto: four times in a run of known length, else at each epoch's end"
            draft.note(key, "left out", reason=reason)


def _rest(draft: Draft) -> None:
    liger = [k for k in draft.values if k.startswith("liger_") and draft.get(k)]
    if liger:
        draft.moved(liger[0], "model.kernels", "liger")
        for key in liger[1:]:
            draft.note(key, "moved", field="model.kernels", became="liger")
    for key in ("plugins",):
        found = [p for p in draft.get(key) or [] if "liger" not in str(p).lower()]
        if found:
            draft.note(key, "left out", reason=f"axolotl's own: {', '.join(str(p).rsplit('.', 1)[-1] for p in found)}")
    tracked = {"wandb": ("use_wandb", "wandb_project"), "mlflow": ("use_mlflow", "mlflow_experiment_name")}
    used = [name for name, keys in tracked.items() if any(draft.get(k) for k in keys)]
    if used:
        draft.put("tracking", ["tensorboard", *used])
        for key in (k for name in used for k in tracked[name] if draft.get(k)):
            draft.note(key, "moved", field="tracking", became=used)
    if draft.get("batch_size") is not None:
        draft.moved("batch_size", "training.global_batch_size", whole(draft.get("batch_size")))
    _precision(draft)


def _precision(draft: Draft) -> None:
    precision(draft)
    for key, dtype in (("bfloat16", "bfloat16"), ("float16", "float16")):
        if draft.get(key) is not None and flag(draft.get(key)):
            draft.moved(key, "model.dtype", dtype)
    if draft.get("torch_dtype"):
        draft.moved("torch_dtype", "model.dtype", str(draft.get("torch_dtype")).removeprefix("torch."))


DEFAULTS: Final = {
    "dataset.validation_split": 0.0,
    "dataset.max_seq_length": 512,
    "training.learning_rate": 5e-5,
    "training.micro_batch_size": 1,
    "training.gradient_accumulation_steps": 1,
    "training.gradient_checkpointing": "none",
}
"""axolotl's schema of 2026-07; warm-up, schedule and epochs are as a spec's."""
TOOL: Final = Tool(
    name="axolotl",
    keys=KEYS,
    sections=("fsdp_config", "trl", "vllm"),
    defaults=DEFAULTS,
    combine=(_adapter, _data, _objective, _long_rows, _spread, length, packing, warmup, schedules, _per_epoch, _rest),
)
