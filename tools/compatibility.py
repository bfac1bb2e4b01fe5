"""What works with what: the planner's own word on real specs, and what tests claim to have run.

A verdict is the rule that refuses, or None: of a Llama of two layers on two H100s (one, for ``single``), on the plain path, where
nothing but the four parts can be refused. The planner enumerates and judges it; nothing is costed or chosen.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from axoc.cost.columns import STRATEGIES
from axoc.errors import UserError
from axoc.facts.catalog import entry_files, load_entry
from axoc.facts.exports import FORMATS
from axoc.facts.families.registry import BUILTIN
from axoc.facts.inventory import parse_inventory
from axoc.facts.models import lookup_model
from axoc.ir.facts import DataFacts, ModelFacts
from axoc.search.choose import Facts, scenarios
from axoc.search.passes import judged
from axoc.spec.load import load_spec
from axoc.spec.quantization import METHODS

ROOT: Final = Path(__file__).resolve().parent.parent
NONE: Final = "none"
MODEL: Final = "HuggingFaceTB/SmolLM2-135M"
"""The spec's; facts are those of ``_small``."""
ADAPTERS: Final = {
    NONE: "none",
    "lora": "lora",
    "rslora": "{type: lora, use_rslora: true}",
    "dora": "{type: lora, use_dora: true}",
    "lora+": "{type: lora, loraplus_lr_ratio: 16}",
    "pissa": "{type: lora, init: pissa}",
    "loftq": "{type: lora, init: loftq}",
}
"""Name -> as the spec says it."""
QUANTIZATIONS: Final = (NONE, *METHODS)
SPEC: Final = """
model: {{id: {model}, quantization: {quantization}, attention: sdpa, kernels: none, compile: false}}
adapter: {adapter}
dataset: {{path: data/train.jsonl, max_seq_length: 512, packing: false}}
training: {{micro_batch_size: 1, global_batch_size: 8, gradient_checkpointing: none, optimizer: adamw_torch_fused}}
distributed: {{type: {strategy}, gpu_count: {gpus}, offload: none}}
export: {{formats: [{formats}]}}
"""
BY_THE_SPEC: Final = "spec"
"""What is refused when it is read."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    rule: str
    reason: str


@cache
def verdict(adapter: str, quantization: str, strategy: str, *formats: str) -> Refused | None:
    """Of a training run that ends with these exports."""
    return _verdict(_small("llama"), adapter, quantization, strategy, formats)


@cache
def family_verdict(family: str, written: str) -> Refused | None:
    """Of a small model of a family in one format (``format`` or ``format:quantization``)."""
    return _verdict(_small(family), NONE, NONE, "ddp", (written,))


def _verdict(
    model: ModelFacts, adapter: str, quantization: str, strategy: str, formats: tuple[str, ...]
) -> Refused | None:
    alone = strategy == "single"
    text = SPEC.format(
        model=MODEL,
        adapter=ADAPTERS[adapter],
        quantization=quantization,
        strategy="ddp" if alone else strategy,
        gpus=1 if alone else 2,
        formats=", ".join(formats),
    )
    try:
        request = load_spec(text.encode(), "spec.yaml")
    except UserError as error:
        return Refused(rule=BY_THE_SPEC, reason=error.diagnostics[0].message)
    facts = Facts(
        model=model,
        clusters=parse_inventory("h100-sxm-80gb:1" if alone else "h100-sxm-80gb:2", None, None),
        data=tuple(DataFacts(path=d.path, rows=10_000) for d in request.datasets),
        spec_digest="sha256:0",
    )
    found = [refusal for scenario, _ in scenarios(request, facts) for _, refusal in judged(request, scenario)]
    refusals = [refusal for refusal in found if refusal is not None]
    if len(refusals) < len(found) or not refusals:
        return None
    return Refused(rule=refusals[0].rule.id, reason=refusals[0].reason)


@cache
def _small(family: str) -> ModelFacts:
    """The catalog's smallest of the family, cut to two layers, so that only its architecture can be refused."""
    if family == "generic":
        llama = load_entry("smollm2-135m.json").config
        config = llama | {"model_type": "granite", "architectures": ["GraniteForCausalLM"]}
        return lookup_model("own/model", config, "config.json", "auto")[0]
    known = [load_entry(name) for name in entry_files()]
    models = [lookup_model(e.id, _cut(e.config), "config.json", "auto")[0] for e in known]
    own = [m for m in models if m.family == family]
    return min(own, key=lambda m: (family == "mistral" and bool(m.sliding_window), m.hidden_size, m.id))


def _cut(config: dict[str, Any]) -> dict[str, Any]:
    layers = "n_layer" if "n_layer" in config else "num_hidden_layers"
    text = config.get("text_config")
    return config | ({"text_config": text | {layers: 2}} if text else {layers: 2}) | {"vocab_size": 1024}


def families() -> tuple[str, ...]:
    return tuple(BUILTIN)


def formats() -> tuple[str, ...]:
    return tuple(FORMATS)


def quantized_formats() -> tuple[str, ...]:
    return tuple(f"{name}:{q}" for name, made in FORMATS.items() for q in made.quantizations)


def strategies() -> tuple[str, ...]:
    return STRATEGIES


def claims() -> dict[str, list[tuple[str, ...]]]:
    """Test -> what it claims to run: (adapter, quantization, strategy, export), or (family, export)."""
    marked = [p for p in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.combination" in p.read_text("utf-8")]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "claims.json"
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", f"--combinations={out}", *map(str, marked)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if not out.is_file():
            raise RuntimeError(f"the tests cannot be collected:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        found = json.loads(out.read_text(encoding="utf-8"))
    return {test: [tuple(c) for c in of] for test, of in found.items()}
