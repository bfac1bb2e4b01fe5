"""`axoc import`: every key carried over or named with the reason, and the spec that comes of it is one."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from axoc.cli import main
from axoc.errors import UserError
from axoc.importing.importer import Imported, imported, report, spec_text
from axoc.spec.load import load_spec
from click.testing import CliRunner

AXOLOTL = """\
base_model: meta-llama/Llama-3.1-8B
load_in_4bit: true
adapter: qlora
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
datasets:
  - path: json
    data_files: data/rows.jsonl
    type: alpaca
  - path: org/chats
    type: chat_template
    split: train[:100]
    field_messages: conversations
val_set_size: 0.02
sequence_len: 4096
sample_packing: true
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 3
optimizer: paged_adamw_8bit
lr_scheduler: cosine
learning_rate: 2e-4
warmup_steps: 10
bf16: auto
tf32: false
gradient_checkpointing: true
attn_implementation: flash_attention_2
logging_steps: 1
evals_per_epoch: 4
special_tokens: {pad_token: "<|end|>"}
wandb_project: mine
fsdp_config: {fsdp_offload_params: true, fsdp_sharding_strategy: FULL_SHARD}
an_own_key: 7
"""
FACTORY = """\
model_name_or_path: Qwen/Qwen2.5-0.5B
stage: dpo
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: q_proj, v_proj
pref_beta: 0.2
pref_loss: simpo
dataset: mine,other
template: qwen
cutoff_len: 1024
learning_rate: 5.0e-6
num_train_epochs: 3.0
max_steps: 200
warmup_steps: 20
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
deepspeed: configs/ds_z2_offload_config.json
report_to: none
bf16: true
save_steps: 100
eval_strategy: steps
eval_steps: 50
"""
TRL = """\
model_name_or_path: Qwen/Qwen2.5-0.5B
dataset_name: data/train.jsonl
use_peft: true
lora_r: 16
lora_target_modules: all-linear
learning_rate: 1.0e-4
max_length: 2048
packing: false
report_to: [tensorboard, wandb]
"""
ACCELERATE = """\
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config:
  fsdp_activation_checkpointing: true
  fsdp_offload_params: false
  fsdp_version: 2
mixed_precision: bf16
num_machines: 1
num_processes: 4
"""
DEEPSPEED = {
    "train_micro_batch_size_per_gpu": 4,
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": 0.5,
    "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}, "stage3_max_live_parameters": 1e9},
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW", "params": {"lr": 3e-5, "weight_decay": "auto"}},
    "steps_per_print": 100,
}


def take(tmp_path: Path, text: str, name: str = "config.yaml", **options: Any) -> tuple[Imported, dict[str, Any]]:
    file = tmp_path / name
    file.write_text(text)
    found = imported([file], **options)
    load_spec(spec_text(found).encode(), "spec.yaml")
    return found, yaml.safe_load(spec_text(found))


def effects(found: Imported) -> dict[str, str]:
    return {note.key: note.effect for note in found.notes}


def test_axolotl(tmp_path: Path) -> None:
    found, spec = take(tmp_path, AXOLOTL)
    assert found.tools == ("axolotl",)
    assert spec["model"] == {"id": "meta-llama/Llama-3.1-8B", "attention": "auto", "quantization": {"method": "nf4"}}
    assert spec["adapter"] == {"type": "lora", "rank": 32, "alpha": 16.0, "dropout": 0.05, "targets": "all-linear"}
    shared = {"max_seq_length": 4096, "validation_split": 0.02, "truncation": "drop"}
    first, second = ({"path": "data/rows.jsonl", "type": "alpaca"}, {"path": "org/chats", "type": "auto"})
    assert spec["dataset"] == [first | shared, second | shared]
    training = spec["training"]
    assert training["learning_rate"] == 2e-4 and training["optimizer"] == "adamw_bnb_8bit" and training["epochs"] == 3
    assert training["micro_batch_size"] == 2 and training["gradient_accumulation_steps"] == 4
    assert spec["distributed"] == {"type": "fsdp", "offload": "optimizer+parameters", "mixed_precision": "bf16"}
    assert spec["tracking"] == ["tensorboard", "wandb"]
    told = effects(found)
    assert told["an_own_key"] == "unknown"
    assert told["special_tokens"] == told["sample_packing"] == told["warmup_steps"] == "trains otherwise"
    assert told["evals_per_epoch"] == told["datasets[1].field_messages"] == "left out"
    assert "tf32" not in told, "what is off needs no word"


LEARNED: list[tuple[str, str, dict[str, Any], dict[str, str]]] = [
    ("axolotl", "train_on_inputs: true", {"train_on": "all", "truncation": "drop"}, {"train_on_inputs": "moved"}),
    ("axolotl", "excess_length_strategy: truncate", {"truncation": "right"}, {"excess_length_strategy": "moved"}),
    ("axolotl", "roles_to_train: [assistant]", {"truncation": "drop"}, {"roles_to_train": "left out"}),
    ("axolotl", "roles_to_train: [user, assistant]", {"train_on": "all"}, {"roles_to_train": "trains otherwise"}),
    ("axolotl", "train_on_eos: last", {}, {"train_on_eos": "trains otherwise"}),
    ("axolotl", "train_on_eos: turn", {}, {"train_on_eos": "left out"}),
    ("llamafactory", "train_on_prompt: true", {"train_on": "all"}, {"train_on_prompt": "moved"}),
    ("llamafactory", "mask_history: true", {"train_on": "last_turn"}, {"mask_history": "moved"}),
    ("llamafactory", "mask_history: false", {}, {"mask_history": "left out"}),
    ("trl", "truncation_mode: keep_end", {"truncation": "left"}, {"truncation_mode": "moved"}),
    ("trl", "completion_only_loss: true", {"train_on": "last_turn"}, {"completion_only_loss": "moved"}),
    ("trl", "completion_only_loss: false", {"train_on": "all"}, {"completion_only_loss": "moved"}),
    ("trl", "assistant_only_loss: true", {"train_on": "assistant"}, {"assistant_only_loss": "moved"}),
    ("trl", "assistant_only_loss: false", {}, {"assistant_only_loss": "trains otherwise"}),
]
BASES = {
    "axolotl": "base_model: a/b\ndatasets: [{path: a.jsonl, type: alpaca}]\nsequence_len: 256\n",
    "llamafactory": "model_name_or_path: a/b\nstage: sft\nfinetuning_type: full\ndataset: a\ncutoff_len: 256\n",
    "trl": "model_name_or_path: a/b\ndataset_name: c/d\nmax_length: 256\nlearning_rate: 1.0e-5\n",
}


@pytest.mark.parametrize(("tool", "line", "dataset", "told"), LEARNED, ids=[f"{t}-{line}" for t, line, _, _ in LEARNED])
def test_what_is_learned_of_a_row_and_what_becomes_of_long_ones(
    tmp_path: Path, tool: str, line: str, dataset: dict[str, Any], told: dict[str, str]
) -> None:
    found, spec = take(tmp_path, f"{BASES[tool]}{line}\n")
    assert found.tools == (tool,)
    of = {key: spec["dataset"].get(key) for key in ("train_on", "truncation")}
    assert of | dataset == of and not ("train_on" in spec["dataset"] and "train_on" not in dataset)
    assert effects(found) | told == effects(found)


@pytest.mark.parametrize(
    ("tool", "lines", "key"),
    [
        ("axolotl", "rl: dpo\nexcess_length_strategy: drop", "excess_length_strategy"),
        ("llamafactory", "pref_loss: orpo\nmask_history: true", "mask_history"),
        ("trl", "beta: 0.1\ntruncation_mode: keep_end", "truncation_mode"),
    ],
)
def test_pairs_have_no_settings_of_texts(tmp_path: Path, tool: str, lines: str, key: str) -> None:
    base = BASES[tool].replace("stage: sft", "stage: dpo")
    found, spec = take(tmp_path, f"{base}{lines}\n")
    assert not {"truncation", "train_on"} & set(spec["dataset"])
    assert effects(found)[key] == "trains otherwise"


def test_axolotl_entries_say_whose_turns_they_train_on_and_split_text(tmp_path: Path) -> None:
    entries = "datasets: [{path: a.jsonl, type: chat_template, roles_to_train: [user, gpt]}, {path: b.txt, type: completion}]\n"
    _, spec = take(tmp_path, f"base_model: a/b\n{entries}sequence_len: 256\n")
    assert [(d.get("train_on"), d["truncation"]) for d in spec["dataset"]] == [("all", "drop"), (None, "split")]


def test_every_key_of_a_file_is_told_of_or_off(tmp_path: Path) -> None:
    for text in (AXOLOTL, FACTORY, TRL):
        found, _ = take(tmp_path, text)
        told = {note.key.split(".")[0].split("[")[0] for note in found.notes}
        silent = {k for k, v in yaml.safe_load(text).items() if k not in told}
        assert silent <= {"tf32"}, silent


def test_llamafactory(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dataset_info.json").write_text(json.dumps({"mine": {"file_name": "pairs.json", "ranking": True}}))
    found, spec = take(tmp_path, FACTORY)
    assert found.tools == ("llamafactory",)
    assert spec["training"]["objective"] == "simpo" and spec["training"]["preference"] == {"beta": 0.2}
    assert [d["path"] for d in spec["dataset"]] == ["data/pairs.json", "data/other.json"]
    assert {d["validation_split"] for d in spec["dataset"]} == {0.0}, "LLaMA-Factory holds nothing out by itself"
    assert spec["adapter"] == {"type": "lora", "rank": 8, "alpha": 16.0, "targets": ["q_proj", "v_proj"]}
    assert spec["distributed"] == {"type": "zero2", "offload": "optimizer", "mixed_precision": "bf16"}
    assert spec["training"]["max_steps"] == 200 and "epochs" not in spec["training"]
    assert spec["training"]["warmup_ratio"] == pytest.approx(0.1) and spec["training"]["eval_steps"] == 50
    assert spec["training"]["lr_scheduler"] == "linear", "the Trainer's own default, which a spec's is not"
    assert spec["tracking"] == []
    (note,) = (n for n in found.notes if n.key == "dataset")
    assert "guesses: other" in note.reason


def test_trl_with_accelerate_is_one_run(tmp_path: Path) -> None:
    (tmp_path / "trl.yaml").write_text(TRL)
    (tmp_path / "launch.yaml").write_text(ACCELERATE)
    found = imported([tmp_path / "trl.yaml", tmp_path / "launch.yaml"])
    spec = yaml.safe_load(spec_text(found))
    assert found.tools == ("trl", "accelerate")
    assert spec["distributed"] == {"type": "fsdp", "gpu_count": 4, "mixed_precision": "bf16"}
    assert spec["training"]["gradient_checkpointing"] == "full" and spec["training"]["learning_rate"] == 1e-4
    assert spec["dataset"]["path"] == "data/train.jsonl" and spec["dataset"]["packing"] is False
    assert spec["adapter"]["rank"] == 16 and spec["tracking"] == ["tensorboard", "wandb"]


def test_deepspeed_json_and_files_that_name_one(tmp_path: Path) -> None:
    _, spec = take(tmp_path, json.dumps(DEEPSPEED), "ds.json", model="Qwen/Qwen2.5-0.5B")
    assert spec["distributed"] == {"type": "zero3", "offload": "optimizer", "mixed_precision": "bf16"}
    assert spec["training"] == {
        "micro_batch_size": 4, "gradient_accumulation_steps": "auto", "max_grad_norm": 0.5, "learning_rate": 3e-5,
    }  # fmt: skip
    _, spec = take(tmp_path, FACTORY.replace("configs/ds_z2_offload_config.json", "ds.json"))
    assert spec["distributed"]["type"] == "zero3", "the file itself, not its name"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (AXOLOTL.replace("adapter: qlora", "adapter: qlora\nrelora: true"), ["relora"]),
        (AXOLOTL.replace("learning_rate: 2e-4", "learning_rate: fast\nrl: gdpo"), ["learning_rate", "rl"]),
        (AXOLOTL.replace("lora_r: 32", "lora_model_dir: old"), ["lora_model_dir"]),
        (FACTORY.replace("finetuning_type: lora", "finetuning_type: freeze"), ["finetuning_type"]),
        (FACTORY + "pipeline_model_parallel_size: 2\n", ["pipeline_model_parallel_size"]),
        (AXOLOTL.replace("val_set_size: 0.02", "val_set_size: 500"), ["val_set_size"]),
        (ACCELERATE.replace("FSDP", "MEGATRON_LM"), ["distributed_type"]),
    ],
)
def test_what_a_spec_cannot_say_is_refused_all_at_once_with_its_place(
    tmp_path: Path, text: str, told: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        take(tmp_path, text, model="x/y")
    found = {key: d for key in told for d in caught.value.diagnostics if key in d.message}
    assert set(found) == set(told) and len(caught.value.diagnostics) == len(told)
    lines = text.splitlines()
    for key, diagnostic in found.items():
        assert diagnostic.line and lines[diagnostic.line - 1].startswith(key)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (ACCELERATE, "nothing here says which model"),
        ("a: 1\nb: 2\n", "no tool's configuration"),
        ("- 1\n", "no mapping of keys"),
        ("base_model: [\n", "config.yaml"),
        ("base_model: &x y\nmicro_batch_size: *x\n", "aliases"),
        ("base_model: !!python/object/apply:os.system [ls]\nsequence_len: 8\n", "base_model"),
        ("", "no mapping of keys"),
    ],
)
def test_what_is_no_configuration_is_said(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        take(tmp_path, text)
    assert told in caught.value.render()


def test_the_command_writes_once_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.yml").write_text(AXOLOTL)
    done = CliRunner().invoke(main, ["import", "train.yml", "--out", "spec.yaml"])
    assert done.exit_code == 0 and "Keys that axoc does not know (1)\n  35: an_own_key" in done.output
    written = (tmp_path / "spec.yaml").read_text()
    assert written.startswith("# Imported from train.yml (axolotl).") and "#  - an_own_key: a key that axoc" in written
    again = CliRunner().invoke(main, ["import", "train.yml", "--out", "spec.yaml"])
    assert again.exit_code == 1 and "--force" in again.output
    broken = CliRunner().invoke(main, ["import", "train.yml", "--out", "s.yaml", "--from", "accelerate"])
    assert broken.exit_code == 1 and not (tmp_path / "s.yaml").exists()


def test_two_hundred_damaged_files_end_in_a_spec_or_a_message(tmp_path: Path) -> None:
    """Values of another kind, keys cut, characters changed: no traceback, and what is written is a spec."""
    chance = random.Random(7)
    for number in range(200):
        text = chance.choice([AXOLOTL, FACTORY, TRL, ACCELERATE])
        try:
            take(tmp_path, damaged(text, chance), model=chance.choice([None, "Qwen/Qwen2.5-0.5B"]))
        except UserError as error:
            assert error.diagnostics, number


def damaged(text: str, chance: random.Random) -> str:
    lines = text.splitlines()
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(lines))
        kind = chance.randrange(4)
        if kind == 0:
            value = chance.choice(
                ["[]", "{}", "-1", "1e999", ".nan", "null", "[a, {b: c}]", "'@{x}'", "true", "0x10", "2024-01-01"]
            )
            lines[at] = lines[at].split(":")[0] + ": " + value
        elif kind == 1:
            lines[at] = lines[at][: chance.randrange(len(lines[at]) + 1)]
        elif kind == 2:
            lines.insert(at, chance.choice(lines))
        else:
            place = chance.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:place] + chance.choice(string.printable) + lines[at][place:]
    return "\n".join(lines)


def test_the_report_holds_no_control_characters(tmp_path: Path) -> None:
    found, _ = take(tmp_path, AXOLOTL + '"evil\\e[2Jkey": "\\e]0;x\\a"\n')
    assert "\x1b" not in report(found) and "\x1b" not in spec_text(found)
