"""Good specs: the contract's example and defaults, published snippets, short forms, and YAML's traps."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from axoc.ir.request import AUTO, AdapterRequest, PlanRequest, PolicyRequest, QuantizationRequest, SampleRequest
from axoc.spec.init import starter_spec
from axoc.spec.load import load_spec
from axoc.units import GIB
from spec.specimens import SPECS, refusal

CONTRACT = """
version: 1
name: llama3-70b-oasst
model:
  id: meta-llama/Meta-Llama-3-70B   # hub id or local path
  revision: null                    # a commit; floating references are resolved into spec.lock
  config: null                      # path of a config.json: enough to plan with, no network, no weights
  type: auto                        # architecture family; auto reads config.json
  dtype: bfloat16                   # of the trained weights: float32 | bfloat16 | float16
  attention: auto                   # auto | sdpa | varlen | flex | flash_attention_2 | eager
  kernels: auto                     # auto | none | liger
  compile: auto                     # auto | true | false
  quantization: none                # none | auto | {method: nf4|int8|fp8|awq|gptq|..., ...}
  trust_remote_code: false
adapter: none                       # none | {type: lora, rank: 16, alpha: 32, dropout: 0.0, targets: all-linear, ...}
dataset:                            # one, or a list with weights
  path: data/train.jsonl            # file, folder, glob, hub id, s3:// gs:// az:// https://
  type: auto                        # a registered format
  validation_split: 0.1
  split_seed: 42
  system_prompt: null
  support_tool_calls: false
  max_seq_length: 4096
  packing: auto                     # auto | true | false
  streaming: false
training:
  objective: sft                    # sft | pretrain | dpo | ipo | kto | orpo | simpo | reward | grpo
  epochs: 1                         # or max_steps
  global_batch_size: auto           # sequences
  micro_batch_size: auto
  gradient_accumulation_steps: auto
  gradient_checkpointing: auto      # auto | none | full | selective
  optimizer: adamw_torch_fused      # + adamw_bnb_8bit, adafactor, muon, ...
  learning_rate: 2.0e-5
  lr_scheduler: cosine
  warmup_ratio: 0.03
  weight_decay: 0.0
  max_grad_norm: 1.0
  seed: 42
  logging_steps: 10
  eval_steps: auto
  save_steps: auto
  early_stopping_patience: null
eval_metrics: [perplexity]          # perplexity, rougeL, ...
distributed:
  type: auto                        # auto | ddp | fsdp | zero1 | zero2 | zero3
  gpu_count: 8                      # default: all of the inventory
  model_parallel_size: 1            # tensor parallel degree; auto allowed
  mixed_precision: bf16             # no | bf16 | fp16 | fp8
  memory_budget_per_gpu_gb: null    # default: what the inventory says
  offload: auto                     # auto | none | optimizer | optimizer+parameters
  config_path: null                 # a hand-written DeepSpeed or FSDP config, checked, then used as it is
export: {formats: [], quantization: none}
tracking: [tensorboard]             # + wandb, mlflow, ...
output_dir: ./axoc-output
logging_level: INFO
target: torchrun                    # torchrun | slurm | kubernetes | skypilot | ray
policy: {}                          # max_cost_usd, max_hours, allowed_images, ...
"""

SNIPPETS = (
    "distributed: {type: auto, gpu_count: 8, model_parallel_size: 2, mixed_precision: bf16,"
    " memory_budget_per_gpu_gb: 80}",
    "distributed:\n  type: auto\n  gpu_count: 8\n  model_parallel_size: 2\n  mixed_precision: bf16\n"
    "  memory_budget_per_gpu_gb: 80",
    "dataset: {type: sharegpt, path: d.jsonl, validation_split: 0.1, split_seed: 42, system_prompt: 'You help.',"
    " support_tool_calls: true, max_seq_length: 4096}",
    "training: {early_stopping_patience: 3, logging_steps: 10}",
    "eval_metrics: [perplexity, rougeL]",
    "output_dir: ./out",
    "logging_level: INFO",
)


def load(text: str, file: str = "spec.yaml") -> PlanRequest:
    return load_spec(text.encode(), file)


def value(text: str, path: str) -> Any:
    """The lowered value at ``training.epochs``, of a spec with a model and ``text``."""
    found: Any = load(text if "model:" in text else f"model: a/b\n{text}\n")
    for part in path.split("."):
        found = found[int(part)] if part.isdecimal() else getattr(found, part)
    return found


def test_the_contracts_example_is_the_defaults() -> None:
    whole = load(CONTRACT)
    bare = load("model: meta-llama/Meta-Llama-3-70B\ndataset: data/train.jsonl\n", "llama3-70b-oasst.yaml")
    assert whole.distributed.gpu_count == 8
    assert bare.distributed.gpu_count is None
    same = replace(whole, distributed=replace(whole.distributed, gpu_count=None), explicit=bare.explicit)
    assert same == bare


@pytest.mark.parametrize(
    "url", ["s3://bucket/runs/one", "gs://bucket", "abfs://box@account.dfs.core.windows.net/runs", "file:///mnt/backup"]
)
def test_upload_to_is_a_url_without_secrets(url: str) -> None:
    assert value(f"upload_to: {url}/", "upload_to") == url
    assert value("output_dir: out", "upload_to") is None


def test_every_key_of_the_contract_is_explicit() -> None:
    explicit = load(CONTRACT).explicit
    assert {"training.epochs", "dataset.packing", "model.dtype", "policy", "export.formats", "name"} <= explicit
    assert load("model: a/b").explicit == {"model", "model.id"}
    assert "dataset.packing" in load("model: a/b\ndataset: [{path: a}, {path: b, packing: true}]").explicit


def test_additions_of_this_version() -> None:
    made = load("model: a/b")
    assert (made.samples, made.policy, made.inventory, made.plugins) == (SampleRequest(), PolicyRequest(), None, ())
    text = (
        "model: a/b\nsamples: {prompts: [hello, 'two\n\n  lines'], max_new_tokens: 8}\n"
        "inventory: cpu\nplugins: [x, y]\n"
        "policy: {max_cost_usd: 10, max_hours: 2.5, max_gpus: 8, memory_safety: 0, allowed_images: [a:1]}\n"
        "dataset: {path: d, options: {a: [1, 2.5, yes, null, '5', 2020-01-01], b: {c: true}}}"
    )
    made = load(text)
    assert made.samples == SampleRequest(prompts=("hello", "two\nlines"), max_new_tokens=8)
    assert made.policy == PolicyRequest(
        max_cost_usd=10.0, max_hours=2.5, max_gpus=8, memory_safety=0.0, allowed_images=("a:1",)
    )
    assert (made.inventory, made.plugins) == ("cpu", ("x", "y"))
    options = made.datasets[0].options
    assert options == {"a": [1, 2.5, "yes", None, "5", "2020-01-01"], "b": {"c": True}}
    assert all(type(v) in (int, float, str, bool, type(None)) for v in options["a"])


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_published_snippets(snippet: str) -> None:
    """Alone, beside a model: what a snippet says is taken, what it leaves open is as without it."""
    made, plain = load(f"model: a/b\n{snippet}\n"), load("model: a/b\n")
    assert made.explicit > plain.explicit
    assert made.training.learning_rate == plain.training.learning_rate


def test_all_published_snippets_together() -> None:
    made = load("model: a/b\n" + "\n".join(SNIPPETS[1:]))
    assert made.distributed.memory_budget_per_gpu_bytes == 80 * GIB
    assert (made.distributed.gpu_count, made.distributed.model_parallel_size) == (8, 2)
    assert made.datasets[0].support_tool_calls is True
    assert made.eval_metrics == ("perplexity", "rougeL")
    assert made.training.early_stopping_patience == 3


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("training: {learning_rate: 2e-5}", "training.learning_rate", 2e-5),
        ("training: {learning_rate: 2E-5}", "training.learning_rate", 2e-5),
        ("training: {learning_rate: .5}", "training.learning_rate", 0.5),
        ("training: {learning_rate: 1}", "training.learning_rate", 1.0),
        ("training: {max_steps: 1e3}", "training.max_steps", 1000),
        ("training: {max_steps: 100.0}", "training.max_steps", 100),
        ("training: {epochs: 0.5}", "training.epochs", 0.5),
        ("training: {seed: 0o10}", "training.seed", 8),
        ("training: {seed: 0x10}", "training.seed", 16),
        ("dataset: {path: d, max_seq_length: 4_096}", "datasets.0.max_seq_length", 4096),
        ("distributed: {mixed_precision: no}", "distributed.mixed_precision", "no"),
        ("distributed: {mixed_precision: 'no'}", "distributed.mixed_precision", "no"),
        ("distributed: {gpu_count: auto}", "distributed.gpu_count", None),
        ("distributed: {gpu_count: null}", "distributed.gpu_count", None),
        ("distributed: {model_parallel_size: auto}", "distributed.model_parallel_size", AUTO),
        ("distributed: {memory_budget_per_gpu_gb: 79.5}", "distributed.memory_budget_per_gpu_bytes", 85362475008),
        ("training: {gradient_checkpointing: none}", "training.gradient_checkpointing", "none"),
        ("model: {id: a/b, compile: yes}", "model.compile", True),
        ("model: {id: a/b, compile: off}", "model.compile", False),
        ("model: {id: a/b, compile: True}", "model.compile", True),
        ("model: {id: a/b, revision: 1234567}", "model.revision", "1234567"),
        ("model: {id: a/b, revision: 123e4567}", "model.revision", "123e4567"),
        ("model: {id: a/b, revision: 0123456}", "model.revision", "0123456"),
        ("model: {id: a/b, revision: ~}", "model.revision", None),
        ("name: 2024-05-01", "name", "2024-05-01"),
        ("name: 1.0", "name", "1.0"),
        ("name: no", "name", "no"),
        ("name: on", "name", "on"),
        ("name: 1:30", "name", "1:30"),
        ("name: null", "name", "spec"),
        ("name: 'null'", "name", "null"),
        ("version: 1.0", "name", "spec"),
        ("logging_level: debug", "logging_level", "DEBUG"),
        ("eval_metrics: rougeL", "eval_metrics", ("rougeL",)),
        ("eval_metrics: [perplexity, perplexity]", "eval_metrics", ("perplexity",)),
        ("tracking: none", "tracking", ()),
        ("tracking: []", "tracking", ()),
        ("tracking: [wandb, mlflow]", "tracking", ("wandb", "mlflow")),
        ("training:", "training.epochs", 1.0),
        ("training: {max_steps: 5}", "training.epochs", None),
        ("policy:", "policy.memory_safety", 0.03),
        ("dataset:", "datasets.0.path", None),
        ("dataset: d.jsonl", "datasets.0.path", "d.jsonl"),
        ("dataset: [a, {path: b, weight: 2}]", "datasets.1.weight", 2.0),
        ("dataset: [a, {path: b, weight: 2}]", "datasets.0.path", "a"),
        ("adapter: none", "adapter", None),
        ("adapter: ~", "adapter", None),
        ("model: {id: a/b, quantization: none}", "model.quantization", None),
        ("model: {id: a/b, quantization: null}", "model.quantization", None),
        ("model: {id: a/b, quantization: auto}", "model.quantization", AUTO),
        ("model: {id: a/b, quantization: nf4}", "model.quantization", QuantizationRequest(method="nf4")),
        ("model: {config: c.json}", "model.id", None),
        ('samples: {prompts: ["tab\\there"]}', "samples.prompts", ("tab\there",)),
    ],
)
def test_values(text: str, path: str, expected: object) -> None:
    found = value(text, path)
    assert found == expected
    assert type(found) is type(expected)


def test_quantization_in_long_form_keeps_its_options() -> None:
    text = "model: {id: a/b, quantization: {method: gptq, double_quantization: false, group_size: 128, sym: yes}}"
    expected = QuantizationRequest(method="gptq", double_quantization=False, options={"group_size": 128, "sym": "yes"})
    assert value(text, "model.quantization") == expected


LORA = AdapterRequest(type="lora", rank=16, alpha=32.0, dropout=0.0, targets="all-linear")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lora", LORA),
        ("{}", LORA),
        ("{type: lora}", LORA),
        ("{rank: 8, alpha: 8}", replace(LORA, rank=8, alpha=8.0)),
        ("{targets: [q_proj, v_proj]}", replace(LORA, targets=("q_proj", "v_proj"))),
        ("{use_rslora: true, use_dora: true}", replace(LORA, use_rslora=True, use_dora=True)),
        ("{modules_to_save: lm_head}", replace(LORA, modules_to_save=("lm_head",))),
    ],
)
def test_adapters(text: str, expected: AdapterRequest) -> None:
    assert value(f"adapter: {text}", "adapter") == expected


@pytest.mark.parametrize("file", ["quickstart.yaml", "specs/quickstart.yaml", "/x y/quickstart.yml"])
def test_the_files_stem_names_the_run(file: str) -> None:
    assert load("model: a/b", file).name == "quickstart"


def test_a_byte_order_mark_and_windows_line_ends_are_read() -> None:
    assert load_spec(b"\xef\xbb\xbfmodel: a/b\r\ntraining:\r\n  epochs: 2\r\n", "s.yaml").training.epochs == 2.0


def test_lowered_texts_are_plain() -> None:
    """The reader's own kind of str must not leak: canonical serialization looks at types."""
    made = load("model: {id: a/b, type: llama}\nname: x\nplugins: [p]\ntracking: wandb\nadapter: {targets: [q]}")
    texts = [made.model.id, made.model.type, made.name, *made.plugins, *made.tracking, *made.adapter.targets]
    assert {type(t) for t in texts} == {str}


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_example_specs(path: Any) -> None:
    assert load_spec(path.read_bytes(), str(path)).name == path.stem


def test_the_starter_spec_loads_and_so_does_what_it_comments_out() -> None:
    assert load(starter_spec()).model.id == "Qwen/Qwen2.5-0.5B"
    shown = re.sub(r"^( *)# ( *[a-z_]+:)", r"\1\2", starter_spec(), flags=re.MULTILINE)
    every = load(re.sub(r"^adapter: lora.*\n", "", shown, flags=re.MULTILINE))
    assert every.training.early_stopping_patience == 3
    assert every.distributed.gpu_count == 8
    assert every.samples.prompts
    assert every.adapter == LORA


@pytest.mark.parametrize(
    "text",
    [
        "training: {global_batch_size: 64, micro_batch_size: 4, gradient_accumulation_steps: 2}",
        "training: {early_stopping_patience: 2, eval_steps: 20, save_steps: 40}",
        "training: {eval_steps: 20, save_steps: 50}",
        "dataset: {path: s3://b/d, streaming: true, validation_split: 0}\ntraining: {max_steps: 10}",
        "dataset: [{path: a, validation_split: 0}, {path: b}]\ntraining: {early_stopping_patience: 1}",
    ],
)
def test_what_the_checks_between_fields_allow(text: str) -> None:
    assert load(f"model: a/b\n{text}").explicit >= {text.split(":")[0], "model"}


def test_batches_of_two_are_checked_too() -> None:
    found = refusal("model: a/b\ntraining: {global_batch_size: 10, micro_batch_size: 4}")
    assert "micro_batch_size 4" in found[0].message
