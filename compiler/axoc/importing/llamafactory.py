"""LLaMA-Factory's YAML (its 0.9 to 1.0): transformers' arguments, and its own for model, data and method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from axoc.errors import UserError
from axoc.importing.keys import NOTHING, Key, each, flag, number, otherwise, out, refuse, text, to, whole, with_others
from axoc.importing.trainer import ARGUMENT_DEFAULTS, COMBINED_ARGUMENTS, of_pairs
from axoc.importing.trainer_keys import ARGUMENTS
from axoc.importing.translate import Draft, Tool, problem

STAGES: Final = {"sft": "sft", "pt": "pretrain", "dpo": "dpo", "kto": "kto", "rm": "reward"}
LOSSES: Final = {"sigmoid": "dpo", "ipo": "ipo", "orpo": "orpo", "simpo": "simpo", "kto_pair": "dpo"}
FREEZE: Final = "training some layers of the model is not among axoc's methods: adapters or all weights are"
OPTIMIZER: Final = "is an optimizer that axoc has not; training.optimizer lists those it has"
VISION: Final = (
    "of models that see axoc trains the decoder, on images as their processor makes them; what sees stays as it is"
)

KEYS: Final[dict[str, Key]] = ARGUMENTS | {
    "model_name_or_path": to("model.id", text),
    "model_revision": to("model.revision", text),
    "cutoff_len": to("dataset.max_seq_length", whole),
    "val_size": to("dataset.validation_split", number),
    "packing": with_others(),
    "streaming": to("dataset.streaming", flag),
    "enable_liger_kernel": to("model.kernels", lambda value: "liger" if flag(value) else "none"),
    "default_system": to("dataset.system_prompt", text),
    **each(with_others(), "stage", "finetuning_type", "dataset", "dataset_dir", "lora_rank", "lora_alpha", "lora_dropout",
           "lora_target", "additional_target", "use_rslora", "use_dora", "quantization_bit", "quantization_method",
           "quantization_type", "double_quantization", "pref_loss", "pref_beta", "simpo_gamma", "use_muon", "eval_dataset",
           "disable_gradient_checkpointing"),
    "template": out("the tokenizer's own chat template is used"),
    "flash_attn": out("the planner chooses: SDPA runs flash attention's kernels where rows are not packed"),
    **each(out("only training is planned"), "infer_backend", "export_*", "vllm_*", "infer_*"),
    "max_samples": otherwise("all rows are trained on: cut the file to fewer, or set training.max_steps"),
    **each(otherwise("losses beside the usual one are not among axoc's"), "use_asft_loss", "asft_*", "use_eaft_loss", "eaft_*",
           "use_dft_loss", "mixture_of_depths", "pref_ftx", "dpo_label_smoothing"),
    **each(otherwise("rows are not weighted within a batch by dataset here: weight a dataset with dataset.weight"),
           "mix_strategy", "interleave_probs"),
    "train_on_prompt": to("dataset.train_on", lambda value: "all" if flag(value) else NOTHING),
    "mask_history": to("dataset.train_on", lambda value: "last_turn" if flag(value) else NOTHING),
    "resize_vocab": otherwise("the vocabulary is the tokenizer's"),
    **each(otherwise("adapters begin as PEFT's do: A random, B zero"), "pissa_*", "loraplus_*"),
    "adapter_name_or_path": refuse("an adapter is trained from its beginning: merge the old one into the model first"),
    "use_llama_pro": refuse(FREEZE),
    **each(refuse(FREEZE), "freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules"),
    **each(refuse(f"GaLore, APOLLO or BAdam {OPTIMIZER}"), "use_galore", "use_apollo", "use_badam", "use_adam_mini"),
    **each(out("of an optimizer that is refused or off"), "galore_*", "apollo_*", "badam_*"),
    **each(refuse("OFT is no adapter of axoc's: lora is"), "oft_*"),
    **each(out(VISION), "image_*", "video_*", "freeze_vision_tower", "freeze_multi_modal_projector", "freeze_language_model"),
    **each(out("kernels are the planner's choice"), "use_v1_kernels", "use_unsloth*"),
    **each(refuse("kTransformers places experts on the host while training; axoc offloads optimizers and parameters"), "use_kt"),
    "kt_*": out("of kTransformers, which is off"),
    "fp8": otherwise("set distributed.mixed_precision: fp8 where the GPUs multiply it; this stays bf16"),
    "fp8_*": out("of fp8"),
    "fsdp_transformer_layer_cls_to_wrap": out("FSDP's units are planned"),
    **each(with_others(), "tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size",
           "expert_model_parallel_size"),
    **each(out("of Megatron, which axoc does not train with"), "sequence_parallel", "use_distributed_optimizer", "overlap_*",
           "bias_activation_fusion", "apply_rope_fusion", "moe_*", "recompute_granularity", "use_packed_sequences"),
    "mixed_precision": with_others(),
}  # fmt: skip
MEGATRON: Final = (
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "context_parallel_size",
    "expert_model_parallel_size",
)


def _rest(draft: Draft) -> None:
    if draft.get("use_muon"):
        draft.moved("use_muon", "training.optimizer", "muon")
    if draft.get("disable_gradient_checkpointing") is not None:
        wanted = "none" if flag(draft.get("disable_gradient_checkpointing")) else "full"
        draft.moved("disable_gradient_checkpointing", "training.gradient_checkpointing", wanted)


def _parallelism(draft: Draft) -> None:
    for key in MEGATRON:
        size = draft.get(key)
        if size in (None, 1):
            continue
        if key != "tensor_model_parallel_size":
            raise UserError(problem(draft, key, f"{key}: {size} is a parallelism that axoc has not", fix="set it to 1"))
        draft.moved(key, "distributed.model_parallel_size", whole(size))
    if draft.get("mixed_precision"):
        draft.moved("mixed_precision", "distributed.mixed_precision", str(draft.get("mixed_precision")).split("_")[0])


def _method(draft: Draft) -> None:
    kind = str(draft.get("finetuning_type") or "lora")
    if kind not in ("lora", "full"):
        message = f"finetuning_type: {kind} is not among axoc's methods"
        raise UserError(problem(draft, "finetuning_type", message, expected="full, or lora", fix=None))
    draft.note("finetuning_type", "moved", field="adapter", became="none" if kind == "full" else "lora")
    if kind == "full":
        draft.put("adapter", "none")
        return
    rank = whole(draft.get("lora_rank") or 8)
    wanted: dict[str, Any] = {"type": "lora", "rank": rank, "alpha": number(draft.get("lora_alpha") or 2 * rank)}
    targets = draft.get("lora_target") or "all"
    wanted["targets"] = "all-linear" if targets == "all" else [t.strip() for t in str(targets).split(",")]
    for key, field in (("lora_dropout", "dropout"), ("use_rslora", "use_rslora"), ("use_dora", "use_dora")):
        if draft.get(key):
            wanted[field] = draft.get(key) if isinstance(draft.get(key), bool) else number(draft.get(key))
    if more := draft.get("additional_target"):
        wanted["modules_to_save"] = [m.strip() for m in str(more).split(",")]
    draft.put("adapter", wanted)
    for key in (
        "lora_rank",
        "lora_alpha",
        "lora_target",
        "lora_dropout",
        "use_rslora",
        "use_dora",
        "additional_target",
    ):
        if draft.get(key) is not None:
            draft.note(key, "moved", field="adapter", became=wanted)
    _quantization(draft)


def _quantization(draft: Draft) -> None:
    bits = draft.get("quantization_bit")
    if bits is None:
        return
    method = str(draft.get("quantization_method") or "bnb").lower()
    if method not in ("bnb", "bitsandbytes") or bits not in (4, 8):
        message = f"quantization_bit: {bits} by {method} cannot be trained through"
        raise UserError(problem(draft, "quantization_bit", message, expected="4 or 8, by bitsandbytes"))
    double = draft.get("double_quantization")
    kind = "int8" if bits == 8 else str(draft.get("quantization_type") or "nf4")
    draft.moved("quantization_bit", "model.quantization", {"method": kind, "double_quantization": double is not False})
    for key in ("quantization_method", "quantization_type", "double_quantization"):
        if draft.get(key) is not None:
            draft.note(key, "moved", field="model.quantization", became=kind)


def _objective(draft: Draft) -> None:
    stage = str(draft.get("stage") or "sft")
    if stage not in STAGES:
        message = f"stage: {stage} is not among axoc's objectives"
        raise UserError(
            problem(draft, "stage", message, expected=", ".join(STAGES), fix="training.objective lists them")
        )
    wanted = STAGES[stage]
    if stage == "dpo":
        loss = str(draft.get("pref_loss") or "sigmoid")
        if loss not in LOSSES:
            raise UserError(
                problem(draft, "pref_loss", f"pref_loss: {loss} is not among axoc's", expected=", ".join(LOSSES))
            )
        wanted = LOSSES[loss]
        if draft.get("pref_loss") is not None:
            draft.note("pref_loss", "moved", field="training.objective", became=wanted)
        for key, field in (("pref_beta", "beta"), ("simpo_gamma", "simpo_gamma")):
            if draft.get(key) is not None:
                draft.moved(key, f"training.preference.{field}", number(draft.get(key)))
    draft.moved("stage", "training.objective", wanted)


def _datasets(draft: Draft) -> None:
    """Names of dataset_info.json, which says where each lies; where it is not here, the usual place."""
    names = [n.strip() for n in str(draft.get("dataset") or "").split(",") if n.strip()]
    if not names:
        return
    folder = Path(str(draft.get("dataset_dir") or "data"))
    known = _dataset_info(draft, folder)
    paths = [_path(folder, name, known.get(name, {})) for name in names]
    shared = draft.spec.pop("dataset", {})
    entries = [{"path": path, **shared} for path in paths]
    draft.put("dataset", entries[0] if len(entries) == 1 else entries)
    guessed = [n for n in names if n not in known]
    reason = f"dataset_info.json is not here, so these paths are guesses: {', '.join(guessed)}" if guessed else ""
    draft.note("dataset", "moved", field="dataset.path", became=paths if len(paths) > 1 else paths[0], reason=reason)
    if draft.get("dataset_dir"):
        draft.note("dataset_dir", "moved", field="dataset.path", became=str(folder))
    if draft.get("eval_dataset"):
        reason = "a split of the training data is evaluated on: dataset.validation_split"
        draft.note("eval_dataset", "trains otherwise", reason=reason)


def _dataset_info(draft: Draft, folder: Path) -> dict[str, dict[str, Any]]:
    for place in (draft.folder / folder, folder):
        try:
            found = json.loads((place / "dataset_info.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return {name: entry for name, entry in found.items() if isinstance(entry, dict)}
    return {}


def _path(folder: Path, name: str, entry: dict[str, Any]) -> str:
    if file := entry.get("file_name"):
        return str(folder / str(file))
    return str(entry.get("hf_hub_url") or folder / f"{name}.json")


DEFAULTS: Final = ARGUMENT_DEFAULTS | {"dataset.max_seq_length": 2048, "training.gradient_checkpointing": "full"}
"""LLaMA-Factory checkpoints unless it is told not to (hparams/model_args.py, disable_gradient_checkpointing)."""
TOOL: Final = Tool(
    name="llamafactory",
    keys=KEYS,
    defaults=DEFAULTS,
    combine=(_method, _datasets, _objective, of_pairs, _parallelism, *COMBINED_ARGUMENTS, _rest),
)
