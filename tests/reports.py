"""A spec with a hostile name, and an output folder as a finished run leaves it."""

from __future__ import annotations

import json
from pathlib import Path

SPEC = """\
name: "<script>alert(1)</script> & more"
model: meta-llama/Llama-3.1-8B
dataset: {path: data/train.jsonl, max_seq_length: 4096}
training: {max_steps: 500}
"""


def write_run(folder: Path, digest: str, **changes: object) -> Path:
    folder.mkdir()
    compared = [
        {"metric": "step_seconds", "predicted": 2.0, "measured": 2.5, "difference": 0.25},
        {"metric": "device_used_bytes", "predicted": 4 << 30, "measured": 3 << 30, "difference": -0.25},
        {"metric": "cost_usd", "predicted": None, "measured": None, "difference": None},
    ]
    metrics = {
        "spec_digest": digest,
        "comparison": compared,
        "steps": 40,
        "strategy": "ddp",
        "world_size": 8,
        "accelerator": "h100-sxm-80gb",
        "perplexity_before": 9.5,
        "perplexity_after": 4.25,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics | changes))
    lines = [{"step": s, "loss": 3.0 - s / 40} for s in range(1, 41)] + [{"step": 40, "eval_loss": 2.1}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(v) + "\n" for v in lines) + '{"step": 41, "lo')
    return folder
