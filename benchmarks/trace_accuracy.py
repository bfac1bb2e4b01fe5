"""Compares traced memory with rows measured on a GPU.

    python benchmarks/trace_accuracy.py ROWS.jsonl [--only a01,a02] [--json OUT]

ROWS is what measure.py writes. Prints predicted and measured GiB of peak allocated and reserved memory with the error of
each, then the mean and the largest absolute error, by family and over all. Rows that failed or cannot be traced are
named and left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from axoc.facts.inventory import parse_inventory
from axoc.facts.models import lookup_model
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.job import Job, read_job

CATALOG: Final = Path(__file__).resolve().parent.parent / "compiler/axoc/facts/data/models"
GIB: Final = 2**30
TRAINER_SEED: Final = 42
"""TrainingArguments' own."""
KINDS: Final = ("allocated", "reserved")
ACCELERATOR: Final = "h100-sxm-80gb"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--only", help="ids, with commas between them")
    parser.add_argument("--json", type=Path, help="write every row's prediction there, one JSON line a row")
    options = parser.parse_args()
    wanted = set(options.only.split(",")) if options.only else None
    rows = [json.loads(line) for line in options.rows.read_text().splitlines() if line.strip()]
    judged = [compared(r) for r in rows if wanted is None or r["id"] in wanted]
    done = [j for j in judged if j is not None]
    if options.json:
        options.json.write_text("".join(json.dumps(j) + "\n" for j in done))
    if done:
        summarize(done)
    return 0


def compared(row: dict[str, Any]) -> dict[str, Any] | None:
    """A row with its prediction and errors in percent, shown; None where there is nothing to compare."""
    if "peak_allocated" not in row:
        print(f"{row['id']}: not measured: {row.get('error', '')[:100]}", flush=True)
        return None
    config = config_of(row["model"])
    gradients, unequal = row["method"] != "full" and bool(row["gc"]), side_by_side(row)
    try:
        job, asked = (
            job_of(row, config),
            {"input_gradients": gradients, "padded": unequal, "loading": loading(row, config)},
        )
        found = traced(job, config, **asked, widths=widths(row) if unequal else None)
        most = reservable_bytes(row)
        if most is not None and found["peak_reserved_bytes"] > most:
            found = traced(job, config, **asked, widths=widths(row), device_bytes=most)
    except RuntimeFailure as failure:
        print(f"{row['id']}: not traced: {failure}", flush=True)
        return None
    errors = {k: 100 * (found[f"peak_{k}_bytes"] / row[f"peak_{k}"] - 1) for k in KINDS}
    print(shown(row, found, errors), flush=True)
    return {"id": row["id"], "family": config["model_type"], "errors": errors, "traced": found}


def traced(job: Job, config: dict[str, Any], **asked: Any) -> dict[str, Any]:
    """``asked``: extrapolate.Asked's."""
    from axoc_runtime.trace.__main__ import heavy_imports

    heavy_imports()
    from axoc_runtime.trace.extrapolate import trace

    return trace(job, config, **asked).to_dict()


def loading(row: dict[str, Any], config: dict[str, Any]) -> Callable[[Any], tuple[list[Any], int]] | None:
    """measure.py's own, of quantized models. Rows that were given, of which versions are not told, were not measured by it."""
    if row["dtype"] != "nf4" or "versions" not in row:
        return None
    from measured_loading import as_measured

    return partial(as_measured, config)


def reservable_bytes(row: dict[str, Any]) -> int | None:
    """All of the device but the context. Whoever would have more gives back what is free, and goes on otherwise from then on: each
    step that was measured is run."""
    context = parse_inventory(ACCELERATOR, None, None)[0].accelerator.context_bytes
    return int(row["device_total"] - context) if "device_total" in row else None


def side_by_side(row: dict[str, Any]) -> bool:
    """Whether rows of unequal length were padded to the longest of their batch."""
    return row.get("lengths") == "chat" and not row.get("packing")


def widths(row: dict[str, Any]) -> tuple[tuple[int, ...], ...]:
    """Tokens of the longest row of each micro-batch of each step: in the order of accelerate's SeedableRandomSampler, by the
    Trainer's seed. The longest of all may come where the optimizer's states are not there yet, or no gradients."""
    import torch
    from chat_rows import chat_lengths
    from measure import sequences

    count = sequences(row)
    lengths = chat_lengths(count, row["seq"]) if side_by_side(row) else count * [row["seq"]]
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(TRAINER_SEED)).tolist()
    rows, steps = row["mbs"], row.get("ga", 1)
    each = [max(lengths[i] for i in order[n : n + rows]) for n in range(0, len(order), rows)]
    return tuple(tuple(each[n : n + steps]) for n in range(0, len(each), steps))


def shown(row: dict[str, Any], found: dict[str, Any], errors: dict[str, float]) -> str:
    parts = [f"{row['id']} {row['model']:<14} {row['method']:<5} {row['dtype']:<4} {knobs(row):<26}"]
    for kind in KINDS:
        ours, theirs = found[f"peak_{kind}_bytes"] / GIB, row[f"peak_{kind}"] / GIB
        parts.append(f"{kind} {ours:7.3f} of {theirs:7.3f} {errors[kind]:+6.2f}%")
    top = max(found["phases"], key=found["phases"].get)
    return "  ".join([*parts, f"{top:<15} {found['seconds']:.0f} s"])


def knobs(row: dict[str, Any]) -> str:
    more = [f"ga{row['ga']}" if row.get("ga", 1) > 1 else "", "liger" if row.get("liger") else ""]
    more += [row["optim"] if row.get("optim", "adamw_torch_fused") != "adamw_torch_fused" else ""]
    more += [f"zero{row['zero']}" if row.get("zero") else ""]
    return " ".join(m for m in (f"gc={row['gc'] + 0}", f"{row['mbs']}x{row['seq']}", *more) if m)


def summarize(done: list[dict[str, Any]]) -> None:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in done:
        groups[row["family"]].append(row)
    for name, members in (*sorted(groups.items()), ("all", done)):
        parts = [f"{name:<12} {len(members):>3} rows"]
        for kind in KINDS:
            errors = [abs(m["errors"][kind]) for m in members]
            parts.append(f"{kind}: mean {sum(errors) / len(errors):.2f}%, max {max(errors):.2f}%")
        print("  ".join(parts))


def config_of(model: str) -> dict[str, Any]:
    """The catalog's config.json; ``@N`` keeps the first N layers, and of a model that also sees its language part."""
    name, _, layers = model.partition("@")
    values = dict(json.loads((CATALOG / f"{name}.json").read_text())["config"])
    if "text_config" in values:
        values = {"model_type": f"{values['model_type']}_text"} | values["text_config"]
    if layers:
        values["num_hidden_layers"] = int(layers)
        if "layer_types" in values:
            values["layer_types"] = values["layer_types"][: int(layers)]
    return values


def job_of(row: dict[str, Any], config: dict[str, Any]) -> Job:
    """The job that would have run the row."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(job_value(row, config)))
        return read_job(path)


def job_value(row: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    zero = row.get("zero")
    facts, _ = lookup_model(None, config, "config.json", "auto")
    return {
        "schema_version": 1,
        "axoc_version": "",
        "spec_digest": "",
        "name": row["id"],
        "base_dir": ".",
        "model": model_value(row, facts),
        "adapter": None if row["method"] == "full" else adapter_value(row),
        "datasets": [dataset_value(row)],
        "training": training_value(row, facts.num_layers),
        "eval_metrics": [],
        "samples": {"prompts": [], "max_new_tokens": 1},
        "distributed": {
            "strategy": f"zero{zero}" if zero else "single",
            "device": "cuda",
            "world_size": 1,
            "nodes": 1,
            "processes_per_node": 1,
            "data_parallel": 1,
            "tensor_parallel": 1,
            "replicate_degree": 1,
            "mixed_precision": "bf16",
            "offload": "none",
            "config": None,
        },
        "resume": {"strategies": [], "world_sizes": [], "because": ""},
        "export": {"formats": [], "quantization": "none"},
        "tracking": [],
        "output_dir": "out",
        "upload_to": None,
        "logging_level": "INFO",
        "plugins": [],
        "prediction": dict.fromkeys(
            ("peak_allocated_bytes", "peak_reserved_bytes", "device_used_bytes", "host_bytes"), 0
        )
        | {"step_seconds": 0.0, "tokens_per_second": 0.0, "total_seconds": None, "cost_usd": None}
        | {"mfu": None, "step_breakdown": {}, "pace": {}, "batch_fill": 1.0},
        "expect": {"accelerator": ACCELERATOR}
        | dict.fromkeys(("device_memory_bytes", "host_bytes", "disk_bytes", "parameters", "trainable_parameters"), 0)
        | {"float8_linears": 0}
        | dict.fromkeys(("link_bytes_per_second", "network_bytes_per_second"), 0.0),
    }


def model_value(row: dict[str, Any], facts: Any) -> dict[str, Any]:
    nf4 = {"method": "nf4", "double_quantization": row.get("double_quant", True), "options": {}}
    return {
        "id": row["model"],
        "revision": None,
        "family": facts.family,
        "decoder_block": facts.decoder_block,
        "dtype": "float32" if row["dtype"] == "fp32" else "bfloat16",
        "attention": row.get("attention") or ("varlen" if row.get("packing") else "sdpa"),
        "kernels": row.get("kernels") or ("liger" if row.get("liger") else "none"),
        "compile": bool(row.get("compile")),
        "quantization": nf4 if row["dtype"] == "nf4" else None,
        "tokenizer": {"source": None, "type": None, "chat_template": None, "added_tokens": [], "embedding_rows": None},
        "trust_remote_code": False,
        "licence": None,
        "vision": False,
    }


def adapter_value(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "lora",
        "rank": row.get("rank", 16),
        "alpha": 32.0,
        "dropout": row.get("dropout", 0.0),
        "targets": row.get("targets", "all-linear"),
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": [],
        "init": "default",
        "init_iterations": None,
        "loraplus_lr_ratio": None,
        "casts_inputs": row.get("casts", True),
        "scales_between": row.get("between", False),
    }


def dataset_value(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "path": None,
        "type": "auto",
        "weight": 1.0,
        "validation_split": 0.5 if row.get("eval") else 0.0,
        "split_seed": 0,
        "system_prompt": None,
        "support_tool_calls": False,
        "max_seq_length": row["seq"],
        "packing": row.get("packing", False),
        "streaming": False,
        "truncation": "right",
        "train_on": "assistant",
        "on_bad_row": "fail",
        "options": {},
    }


def training_value(row: dict[str, Any], layers: int) -> dict[str, Any]:
    gc = row["gc"]
    kind = "none" if not gc else "full" if gc is True else "selective"
    ga = row.get("ga", 1)
    return {
        "objective": "sft",
        "epochs": None,
        "max_steps": 2,
        "global_batch_size": row["mbs"] * ga,
        "micro_batch_size": row["mbs"],
        "gradient_accumulation_steps": ga,
        "gradient_checkpointing": kind,
        "checkpoint_above_parameters": None,
        "checkpointed_layers": {"none": 0, "full": layers}.get(kind, gc),
        "optimizer": row.get("optim", "adamw_torch_fused"),
        "bf16_update": row.get("bf16_update", "nearest"),
        "learning_rate": 1e-5,
        "lr_scheduler": "linear",
        "warmup_ratio": 0.0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "seed": 0,
        "logging_steps": 1,
        "eval_steps": None,
        "eval_rows": None,
        "save_steps": None,
        "early_stopping_patience": None,
        "preference": None,
        "grpo": None,
    }


if __name__ == "__main__":
    sys.exit(main())
