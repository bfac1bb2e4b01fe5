"""Measures peak memory and step time of one-GPU training configurations with the plain transformers Trainer.

    python benchmarks/measure.py CONFIGS.jsonl ROWS.jsonl [--seconds 560]

One JSON line a configuration: id, model (a name of the catalog, ``@N`` for its first N layers), method (full | lora |
qlora), dtype (fp32: float32 weights under bf16 autocast; bf16; nf4), gc (false, true, or a number of layers), mbs, seq,
and optionally steps, ga, optim, liger, rank, targets, dropout, attention, eval, double_quant; kernels (none | liger | chunked),
compile, lengths (chat: rows of unequal length, see chat_rows.py), packing (of such rows), casts (false: adapters leave their
inputs as they come, where PEFT's cast them) and between (true: their factor between both matrices, where PEFT's is taken of the
result) with the runtime's own parts, which must be importable. Each runs in a process of its own, forked after the imports, so
that no peak is another's. Weights are random, rows are random tokens, exactly ``seq`` long where no lengths are asked for.
What is measured: bytes allocated after building, peaks of the whole run (evaluation too where asked), bytes the driver
reports as used on the device, and the optimizer step without data loading: the median of those after the third.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from chat_rows import Packed, chat_rows, padded

os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

CATALOG: Final = Path(__file__).resolve().parent.parent / "compiler/axoc/facts/data/models"
STEPS: Final = 7
DEVICE: Final = "cuda"
SETTLED: Final = 3
BLOCKS: Final = ("DecoderLayer", "NeoXLayer", "GPT2Block")
LOSS_ALONE: Final = {
    "rope": False, "rms_norm": False, "swiglu": False, "geglu": False, "fused_linear_cross_entropy": True,
}  # fmt: skip
"""Of Liger's kernels, beside compiled blocks: what axoc_runtime.kernels gives the Trainer."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--seconds", type=float, default=560.0, help="start no configuration after so long")
    options = parser.parse_args()
    import torch

    import_all()
    assert not torch.cuda.is_initialized(), "a forked process could not use the GPU"
    began = time.monotonic()
    for line in options.configs.read_text().splitlines():
        if time.monotonic() - began > options.seconds:
            print("out of time: the rest was not measured", flush=True)
            break
        if line.strip():
            missing = _in_a_child(json.loads(line), options.rows)
            if missing:
                return 1
    return 0


def import_all() -> None:
    """Once, before the forks, and without touching the GPU."""
    with gpu_unasked():
        import transformers
        from transformers import AutoConfig, AutoModelForCausalLM, Trainer  # noqa: F401

        for name in ("peft", "liger_kernel.transformers"):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    transformers.logging.set_verbosity_error()


@contextlib.contextmanager
def gpu_unasked() -> Iterator[None]:
    """Libraries ask a GPU what it can while they are imported, and only asking whether it is there would keep a forked
    process from using it. A process of its own has asked."""
    import torch

    able, count = gpus()
    answers = {"get_device_capability": able, "is_available": count > 0, "device_count": count}
    asked = {name: getattr(torch.cuda, name) for name in answers}
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    try:
        yield
    finally:
        for name, function in asked.items():
            setattr(torch.cuda, name, function)


def gpus() -> tuple[tuple[int, int] | None, int]:
    """Of the first GPU, None where there is none; and how many there are."""
    import torch

    reading, writing = os.pipe()
    if os.fork() == 0:
        found = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
        os.write(writing, json.dumps([found, torch.cuda.device_count()]).encode())
        os._exit(0)
    os.wait()
    found, count = json.loads(os.read(reading, 100))
    os.close(reading)
    os.close(writing)
    return None if found is None else (found[0], found[1]), count


def _in_a_child(row: dict[str, Any], rows: Path) -> bool:
    """Measures one row and prints it. True where a package is missing, so that all others would fail too."""
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            measured = row | measure(row)
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
            measured = row | {"error": text[:300]}
            if "out of memory" not in text:
                traceback.print_exc()
        with rows.open("a") as out:
            out.write(json.dumps(measured) + "\n")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    os.waitpid(child, 0)
    last = json.loads(rows.read_text().splitlines()[-1]) if rows.exists() else {}
    shown = last.get("error") or " ".join(
        f"{k} {last.get(k, 0) / 2**30:.2f}" for k in ("peak_allocated", "peak_reserved", "device_used")
    )
    print(
        f"{row['id']} {row['model']}: {shown}; step {last.get('step_median_s')}; {time.monotonic() - started:.0f} s",
        flush=True,
    )
    return last.get("error", "").startswith(("ModuleNotFoundError", "ImportError"))


def measure(row: dict[str, Any]) -> dict[str, Any]:
    import torch

    torch.manual_seed(0)
    if torch.cuda.is_available():
        torch.cuda.set_device(0)
    trainer, timing, model_allocated = build(row)
    torch.cuda.reset_peak_memory_stats()
    trainer.train()
    if row.get("eval"):
        trainer.evaluate()
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    parameters = list(trainer.model.parameters())
    return {
        "real_tokens_a_step": real_tokens(row),
        "params": sum(p.numel() for p in parameters) if row["dtype"] != "nf4" else None,
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "step_s": [round(s, 5) for s in timing.steps],
        "step_median_s": statistics.median(timing.steps[SETTLED:]),
        "model_allocated": model_allocated,
        "peak_allocated": torch.cuda.max_memory_allocated(),
        "peak_reserved": torch.cuda.max_memory_reserved(),
        "device_used": total - free,
        "device_total": total,
        "gpu": torch.cuda.get_device_name(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("torch", "transformers", "accelerate", "peft", "bitsandbytes", "liger-kernel"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def build(row: dict[str, Any]) -> tuple[Any, Any, int]:
    """(trainer, timing, bytes allocated once the model is on the device)"""
    import torch
    from transformers import Trainer, TrainingArguments

    model = make_model(row)
    arguments = TrainingArguments(
        output_dir="/tmp/measure",
        bf16=True,
        use_cpu=DEVICE == "cpu",
        per_device_train_batch_size=row["mbs"],
        per_device_eval_batch_size=row["mbs"],
        gradient_accumulation_steps=row.get("ga", 1),
        max_steps=row.get("steps", STEPS),
        optim=row.get("optim", "adamw_torch_fused"),
        use_liger_kernel=kernels_of(row) == "liger",
        liger_kernel_config=LOSS_ALONE if row.get("compile") else None,
        learning_rate=1e-5,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        eval_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    timing = make_timing()
    rows, held_out = rows_of(row, sequences(row)), rows_of(row, 2 * row["mbs"])
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=held_out,
        callbacks=[timing],
        data_collator=collator(row),
    )
    set_checkpointing(row, trainer.model)
    torch.cuda.synchronize()
    return trainer, timing, torch.cuda.memory_allocated()


def make_model(row: dict[str, Any]) -> Any:
    """Random weights of the published shape, made on the device."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = torch.float32 if row["dtype"] == "fp32" else torch.bfloat16
    config = make_config(row)
    attention = row.get("attention") or ("varlen" if row.get("packing") else "sdpa")
    if attention == "varlen":
        from axoc_runtime.attention.register import register_varlen

        register_varlen()
        attention = "axoc_varlen"
    with torch.device(DEVICE):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    model.config.use_cache = False
    if row["method"] == "qlora":
        model = quantized(row, model)
    return with_kernels(row, with_adapter(row, model) if row["method"] != "full" else model)


def kernels_of(row: dict[str, Any]) -> str:
    return str(row.get("kernels") or ("liger" if row.get("liger") else "none"))


def with_kernels(row: dict[str, Any], model: Any) -> Any:
    """The runtime's own loss and compiled blocks, in the runtime's order: the head's loss, then blocks."""
    job: Any = SimpleNamespace(
        model=SimpleNamespace(decoder_block=block_name(model), family="", compile=bool(row.get("compile"))),
        datasets=[SimpleNamespace(packing=bool(row.get("packing")))],
        distributed=SimpleNamespace(tensor_parallel=1, device=DEVICE),
    )
    if kernels_of(row) == "chunked":
        from axoc_runtime.kernels.head import use_chunked_loss

        use_chunked_loss(job, model)
    if row.get("compile"):
        from axoc_runtime.kernels.compiled import compile_blocks

        compile_blocks(job, model)
    return model


def block_name(model: Any) -> str:
    names = {type(m).__name__ for m in model.modules()}
    return next(n for n in sorted(names) if n.endswith(BLOCKS))


def rows_of(row: dict[str, Any], count: int) -> Any:
    if row.get("lengths") != "chat":
        return Tokens(row["seq"], count)
    return chat_rows(count, row["seq"], packed=bool(row.get("packing")))


def sequences(row: dict[str, Any]) -> int:
    return int(row.get("steps", STEPS) * row["mbs"] * row.get("ga", 1))


def collator(row: dict[str, Any]) -> Any:
    if row.get("lengths") != "chat":
        return None
    return Packed(row["seq"]) if row.get("packing") else padded


def real_tokens(row: dict[str, Any]) -> float:
    """Of an optimizer step, without padding: the mean of the rows that were trained on."""
    each = row["mbs"] * row.get("ga", 1)
    if row.get("lengths") != "chat":
        return float(each * row["seq"])
    trained = rows_of(row, sequences(row)).rows
    return each * sum(map(sum, trained)) / len(trained)


def make_config(row: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    name, _, layers = row["model"].partition("@")
    values = dict(json.loads((CATALOG / f"{name}.json").read_text())["config"])
    if "text_config" in values:  # of a model that also sees: only its language part is measured
        values = {"model_type": f"{values['model_type']}_text"} | values["text_config"]
    kind = values.pop("model_type")
    if layers:
        values["num_hidden_layers"] = int(layers)
        if "layer_types" in values:
            values["layer_types"] = values["layer_types"][: int(layers)]
    for key in ("architectures", "transformers_version", "torch_dtype", "dtype", "auto_map"):
        values.pop(key, None)
    return AutoConfig.for_model(kind, **values)


def quantized(row: dict[str, Any], model: Any) -> Any:
    """nf4 by replacing the linear layers of the blocks, as from_pretrained does, then PEFT's preparation."""
    import bitsandbytes as bnb
    import torch
    from peft import prepare_model_for_kbit_training

    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and not name.endswith("lm_head"):
            parent, _, leaf = name.rpartition(".")
            with torch.device("meta"):  # its own weights, drawn on the host, are in nobody's use
                new = bnb.nn.Linear4bit(
                    module.in_features,
                    module.out_features,
                    bias=module.bias is not None,
                    compute_dtype=torch.bfloat16,
                    compress_statistics=row.get("double_quant", True),
                    quant_type="nf4",
                )
            new.weight = bnb.nn.Params4bit(
                module.weight.data,
                requires_grad=False,
                compress_statistics=row.get("double_quant", True),
                quant_type="nf4",
            ).to(DEVICE)
            if module.bias is not None:
                new.bias = module.bias
            setattr(model.get_submodule(parent), leaf, new)
    torch.cuda.empty_cache()
    model.is_loaded_in_4bit = model.is_quantized = True
    model.hf_quantizer = SimpleNamespace(is_trainable=True, is_qat_trainable=False, is_compileable=False)
    return prepare_model_for_kbit_training(
        model, use_gradient_checkpointing=bool(row["gc"]), gradient_checkpointing_kwargs={"use_reentrant": False}
    )


def with_adapter(row: dict[str, Any], model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=row.get("rank", 16),
        lora_alpha=32,
        lora_dropout=row.get("dropout", 0.0),
        target_modules=row.get("targets", "all-linear"),
        task_type="CAUSAL_LM",
    )
    made = get_peft_model(model, config)
    if not row.get("casts", True):
        from axoc_runtime.models.adapter_inputs import leave_inputs

        leave_inputs(made)
    if row.get("between"):
        from axoc_runtime.models.adapter_scale import scale_between

        scale_between(made)
    return made


def set_checkpointing(row: dict[str, Any], model: Any) -> None:
    """As axoc's runtime sets it: none, all blocks, or the first so many."""
    if not row["gc"]:
        return
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if row["method"] != "full":
        model.enable_input_require_grads()
    if row["gc"] is not True:
        blocks = [m for m in model.modules() if type(m).__name__.endswith(BLOCKS)]
        for index, block in enumerate(blocks):
            block.gradient_checkpointing = index < row["gc"]


def make_timing() -> Any:
    import torch
    from transformers import TrainerCallback

    class Timing(TrainerCallback):
        def __init__(self) -> None:
            self.steps: list[float] = []
            self.started = 0.0

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            torch.cuda.synchronize()
            self.started = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            torch.cuda.synchronize()
            self.steps.append(time.perf_counter() - self.started)

    return Timing()


class Tokens:
    """Rows of random tokens, all of one length."""

    def __init__(self, length: int, rows: int) -> None:
        self.length, self.rows = length, rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        import torch

        if index >= self.rows:
            raise IndexError(index)
        made = torch.randint(5, 1000, (self.length,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": made, "labels": made.clone()}


if __name__ == "__main__":
    sys.exit(main())
