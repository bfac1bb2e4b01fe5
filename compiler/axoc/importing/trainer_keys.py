"""Keys of transformers' TrainingArguments and TRL's configs, which LLaMA-Factory takes too (transformers 5.17, trl 1.16)."""

from __future__ import annotations

from typing import Final

from axoc.importing.keys import (
    NOTHING,
    OPTIMIZERS,
    SCHEDULERS,
    Key,
    each,
    flag,
    number,
    otherwise,
    out,
    positive,
    recomputed,
    refuse,
    text,
    to,
    trackers,
    whole,
    with_others,
    word,
)

MACHINE: Final = "where it runs is the inventory's and the target's"
LOADING: Final = "the data is prepared once, before training, by axoc's own workers"
HUB: Final = "nothing is pushed to the hub: upload_to sends results to a store"
LOGGING: Final = "what is logged beside the metrics is not chosen in a spec"
ADAM: Final = "Adam's betas and epsilon are torch's defaults (0.9, 0.999, 1e-8)"

ARGUMENTS: Final[dict[str, Key]] = {
    "learning_rate": to("training.learning_rate", number),
    "num_train_epochs": to("training.epochs", number),
    "max_steps": to("training.max_steps", positive),
    "per_device_train_batch_size": to("training.micro_batch_size", whole),
    "gradient_accumulation_steps": to("training.gradient_accumulation_steps", whole),
    "gradient_checkpointing": to("training.gradient_checkpointing", recomputed),
    "optim": to("training.optimizer", word(OPTIMIZERS)),
    "lr_scheduler_type": to("training.lr_scheduler", word(SCHEDULERS)),
    "warmup_ratio": to("training.warmup_ratio", number),
    "weight_decay": to("training.weight_decay", number),
    "max_grad_norm": to("training.max_grad_norm", number),
    "seed": to("training.seed", whole),
    "logging_steps": to("training.logging_steps", lambda value: max(1, int(number(value))) if number(value) >= 1 else NOTHING),
    "output_dir": to("output_dir", text),
    "report_to": to("tracking", trackers),
    "torch_compile": to("model.compile", flag),
    "use_liger_kernel": to("model.kernels", lambda value: "liger" if flag(value) else "none"),
    "trust_remote_code": to("model.trust_remote_code", flag),
    "run_name": to("name", text),
    **each(with_others(), "warmup_steps", "eval_steps", "save_steps", "eval_strategy", "evaluation_strategy", "save_strategy",
           "bf16", "fp16", "pure_bf16", "deepspeed", "fsdp", "fsdp_config", "do_train"),
    **each(out(MACHINE), "ddp_timeout", "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "local_rank", "ddp_backend",
           "dataloader_pin_memory", "low_cpu_mem_usage", "device_map", "ray_*", "use_ray", "no_cuda", "use_cpu"),
    **each(out(LOADING), "dataloader_*", "preprocessing_num_workers", "dataset_num_proc", "overwrite_cache",
           "remove_unused_columns", "group_by_length", "tokenized_path", "preprocessing_batch_size"),
    **each(out(HUB), "push_to_hub", "hub_*"),
    **each(out(LOGGING), "logging_first_step", "logging_dir", "logging_strategy", "log_level", "disable_tqdm", "plot_loss",
           "include_num_input_tokens_seen", "swanlab_*", "use_swanlab", "trackio_*", "wandb_*", "mlflow_*", "comet_*"),
    **each(out("axoc keeps the two newest checkpoints, whole: weights, optimizer and random states"), "save_total_limit",
           "save_only_model", "save_safetensors"),
    **each(out("a run that is there is never overwritten unasked: launch.sh --fresh or --resume"), "overwrite_output_dir",
           "resume_from_checkpoint", "auto_resume_from_checkpoints"),
    **each(out("evaluation takes the micro-batch's size"), "per_device_eval_batch_size", "eval_batch_size",
           "eval_accumulation_steps", "prediction_loss_only"),
    **each(out("checkpointing is the non-reentrant one"), "gradient_checkpointing_kwargs", "use_reentrant_gc"),
    "tf32": out("products are in the mixed precision's type; TF32 is torch's default for none of them"),
    **each(out("the best model is gone back to where training.early_stopping_patience is set"), "load_best_model_at_end",
           "metric_for_best_model", "greater_is_better"),
    **each(otherwise(ADAM), "adam_beta1", "adam_beta2", "adam_epsilon", "adam_eps"),
    "lr_scheduler_kwargs": otherwise("a schedule has no settings beyond warm-up in a spec"),
    "neftune_noise_alpha": otherwise("no noise is added to embeddings"),
    "label_smoothing_factor": otherwise("the loss is not smoothed"),
    "data_seed": out("training.seed is that of the order too"),
    "do_eval": out("held-out rows are evaluated where dataset.validation_split is above 0"),
    **each(refuse("only training is planned; generate and evaluate with the trained model"), "do_predict",
           "predict_with_generate"),
}  # fmt: skip

TRL: Final[dict[str, Key]] = ARGUMENTS | {
    "model_name_or_path": to("model.id", text),
    "model_revision": to("model.revision", text),
    **each(to("dataset.max_seq_length", whole), "max_length", "max_seq_length"),
    "packing": with_others(),
    "use_peft": with_others(),
    **each(with_others(), "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_modules_to_save", "use_rslora",
           "use_dora", "load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "use_bnb_nested_quant", "dataset_name", "dtype",
           "torch_dtype", "attn_implementation", "loss_type", "rl"),
    "beta": with_others(),
    "dataset_config": otherwise("a dataset's configuration on the hub has no name in a spec: the default one is read"),
    **each(out("the train split is read, and dataset.validation_split of it held out"), "dataset_train_split", "dataset_test_split"),
    "dataset_text_field": out("the format is seen from the columns: dataset.type names one where it is not"),
    "dataset_kwargs": out("formats have options of their own: dataset.options"),
    "chat_template_path": otherwise("the tokenizer's own chat template is used"),
    "eos_token": otherwise("the tokenizer's own tokens are used"),
    "pad_token": out("padding is masked everywhere"),
    "truncation_mode": to("dataset.truncation", word({"keep_start": "right", "keep_end": "left"})),
    **each(with_others(), "assistant_only_loss", "completion_only_loss"),
    "env": out("the environment is the launcher's"),
}  # fmt: skip
