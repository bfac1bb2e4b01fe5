"""What benchmarks/throughput.py compares on: the jobs, chat-like rows, a tokenizer of words, random weights, and a meter."""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
LONGEST: Final = 2048
ROWS: Final = 8000
WORDS_USED: Final = 4000
EVERY: Final = 5
"""Steps between logged losses, and between marks of the meter: there the device is waited for."""
SETTLED_STEPS: Final = 5
"""Compilation, autotuning and the allocator are over."""
PEAK_FLOPS: Final = 989e12
"""An H100 SXM's in bfloat16, without sparsity."""
TINY: Final = {
    "model_type": "llama", "vocab_size": 5000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True,
}  # fmt: skip
JOBS: Final[dict[str, dict[str, Any]]] = {
    "1b-full": {"model": "llama-3.2-1b", "method": "full", "learning_rate": 1e-4, "tuned": {"micro": 2, "gc": False}},
    "3b-full": {"model": "llama-3.2-3b", "method": "full", "learning_rate": 5e-5, "tuned": {"micro": 2, "gc": False}},
    "8b-lora": {"model": "llama-3-8b", "method": "lora", "learning_rate": 2e-4, "tuned": {"micro": 2, "gc": False}},
    "8b-qlora": {"model": "llama-3-8b", "method": "qlora", "learning_rate": 2e-4, "tuned": {"micro": 2, "gc": False}},
    "1b-full-fp8": {"model": "llama-3.2-1b", "method": "full", "learning_rate": 1e-4, "mixed_precision": "fp8"},
    "1b-full-stochastic": {
        "model": "llama-3.2-1b",
        "method": "full",
        "learning_rate": 1e-4,
        "bf16_update": "stochastic",
    },
    "3b-full-fp8": {"model": "llama-3.2-3b", "method": "full", "learning_rate": 5e-5, "mixed_precision": "fp8"},
    "8b-lora-fp8": {"model": "llama-3-8b", "method": "lora", "learning_rate": 2e-4, "mixed_precision": "fp8"},
    "tiny": {"model": None, "method": "full", "learning_rate": 1e-3, "tuned": {"micro": 1, "gc": False}, "packs": 1},
}
"""``packs``: of LONGEST tokens in an optimizer step, 8 where nothing is said.
``mixed_precision``: of the spec, bf16 where nothing is said; the same weights, rows and rates as the job beside it.
``tuned``: of TRL by hand: the micro-batch in packs, and whether it recomputes; --micro and --gc try others."""


SEED = 0
"""Of the weights and of what stands in the rows; their lengths are the same under every seed."""


def packs(job: str) -> int:
    return int(JOBS[job].get("packs", 8))


def config_of(job: str) -> dict[str, Any]:
    """The values of config.json."""
    name = JOBS[job]["model"]
    if name is None:
        return dict(TINY)
    catalog = Path(__file__).resolve().parent.parent / "compiler/axoc/facts/data/models"
    return dict(json.loads((catalog / f"{name}.json").read_text())["config"])


def lengths(rows: int = ROWS) -> Any:
    """Tokens of each row: lognormal, median 300, sigma 0.8, at most LONGEST."""
    draw = np.random.default_rng(0)
    return np.clip(draw.lognormal(np.log(300), 0.8, rows), 16, LONGEST).astype(int)


def token_rows() -> list[list[int]]:
    """Ids from 3 on, as frequent as words are, the end of the text last."""
    draw, found = np.random.default_rng(1 + SEED), []
    weights = 1 / np.arange(1, WORDS_USED + 1)
    for length in lengths():
        found.append([*(3 + draw.choice(WORDS_USED, length - 1, p=weights / weights.sum())).tolist(), 2])
    return found


def packed_rows() -> dict[str, list[list[int]]]:
    """The packs that the runtime makes of these rows, in its order, as the columns that TRL's own packing leaves.

    Each side packing by itself is no equal work: other documents stand in each step, and losses that fall a nat in five
    steps are then those of two draws. From the same packs a sampler of the same seed makes the same steps."""
    from axoc_runtime.preparation.packing import packs

    rows = token_rows()
    order, edges = packs([len(row) for row in rows], LONGEST)
    documents = [[rows[i] for i in order[begin:end]] for begin, end in pairwise(edges.tolist())]
    ids = [[token for document in pack for token in document] for pack in documents]
    return {"input_ids": ids, "labels": ids, "seq_lengths": [[len(d) for d in pack] for pack in documents]}


def write_folder(job: str, folder: Path) -> None:
    """model/ (config.json and tokenizer) and data.jsonl: the same every time (of one SEED)."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    config = config_of(job)
    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, config["vocab_size"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens([AddedToken(t, special=True) for t in ("<unk>", "<s>", "</s>")])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>", pad_token="<unk>")
    (folder / "model").mkdir(parents=True, exist_ok=True)
    made.save_pretrained(folder / "model")
    (folder / "model" / "config.json").write_text(json.dumps(config))
    with (folder / "data.jsonl").open("w") as out:
        for ids in token_rows():
            out.write(json.dumps({"text": " ".join(f"w{i}" for i in ids[:-1])}) + "\n")


def make_model(job: str, *, dtype: str, attention: str, device: str) -> Any:
    """Random weights of the published shape, the same every time (of one SEED); quantized where the job is QLoRA's."""
    import measure
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = config_of(job)
    kind = values.pop("model_type")
    for key in ("architectures", "transformers_version", "torch_dtype", "dtype", "auto_map"):
        values.pop(key, None)
    torch.manual_seed(SEED)
    with torch.device(device):
        config = AutoConfig.for_model(kind, **values)
        # drawn in float32, so that all parts begin with the same weights
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation=attention)
    model.config.use_cache = False
    model = model.to(getattr(torch, dtype))
    if JOBS[job]["method"] == "qlora":
        measure.DEVICE = device  # type: ignore[misc]
        model = measure.quantized({"gc": False}, model)
    return model


class Meter:
    """Tokens and seconds at every ``every``-th step, losses as logged, and the end of the run when its time is over."""

    def __init__(self, seconds: float, device: str, every: int = EVERY) -> None:
        self.seconds, self.device, self.every = seconds, device, every
        self.trainer: Any = None
        self.marks: list[tuple[int, float, float]] = []
        """(steps, seconds, real tokens)"""
        self.losses: list[tuple[float, float]] = []
        """(real tokens, mean loss of the steps since the last one): of the first step alone, then of every so many."""

    def callback(self) -> Any:
        from transformers import TrainerCallback

        meter = self

        class Callback(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.global_step % meter.every == 0:
                    meter.mark(state.global_step)
                    settled = [m for m in meter.marks if m[0] >= SETTLED_STEPS]
                    if settled and settled[-1][1] - settled[0][1] > meter.seconds:
                        control.should_training_stop = True

            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
                if "loss" in (logs or {}):
                    meter.losses.append((float(meter.trainer.tokens_seen), float(logs["loss"])))

        return Callback()

    def mark(self, step: int) -> None:
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()
        self.marks.append((step, time.perf_counter(), float(self.trainer.tokens_seen)))

    def measured(self, job: str) -> dict[str, Any]:
        settled = [m for m in self.marks if m[0] >= SETTLED_STEPS]
        (first, began, before), (last, ended, after) = settled[0], settled[-1]
        rate = (after - before) / (ended - began)
        return {
            "tokens_per_second": rate, "step_seconds": (ended - began) / (last - first), "steps": last,
            "tokens_per_step": (after - before) / (last - first), "mfu": rate * flops_a_token(job) / PEAK_FLOPS,
            "losses": self.losses, **memory(self.device),
        }  # fmt: skip


def flops_a_token(job: str) -> float:
    """Of the mathematics: 6 a weight (4 where it is frozen), and attention within documents. See packed_step.py."""
    config, squared = config_of(job), lengths().astype(float)
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    attention = hidden * size * (2 * heads + 2 * config["num_key_value_heads"])
    weights = config["num_hidden_layers"] * (attention + 3 * hidden * config["intermediate_size"])
    weights += config["vocab_size"] * hidden
    products = (6 if JOBS[job]["method"] == "full" else 4) * weights
    return float(products + 6 * config["num_hidden_layers"] * heads * size * (squared**2).mean() / squared.mean())


def memory(device: str) -> dict[str, Any]:
    import torch

    if device != "cuda":
        return {"gpu": "cpu", "torch": torch.__version__}
    free, total = torch.cuda.mem_get_info()
    return {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(), "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
        "device_used_bytes": total - free, "gpu": torch.cuda.get_device_name(), "torch": torch.__version__,
    }  # fmt: skip
