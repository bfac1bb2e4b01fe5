"""Tries every causal architecture of transformers that axoc has no family of, and writes docs/architectures.md.

    .venv/bin/python tools/architectures.py [--results FILE] [MODEL_TYPE ...]

Each is made small, with random weights, and goes through spec, plan, bundle, preflight, data, two steps, merge and export, once
whole and once with LoRA: about six seconds. What FILE has already is not done again.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests")]
PAGE: Final = ROOT / "docs" / "architectures.md"
LARGEST: Final = 5_000_000
"""Parameters: what cannot be made as small is not tried."""
HEAD: Final = """# Architectures without a family

Made by `tools/architectures.py`: do not edit. A model whose `model_type` no family of axoc's reads is planned as a Llama with its
config's widths, and says so; memory and time have a band of half the prediction either way. Beside the trace of the real code
(`axoc verify`; LoRA, bf16, two rows of 1,024 tokens, an H100, the published sizes), predicted peaks were off by 0.0% (granite),
-3.0% (bloom), -7.0% (qwen2_moe), -23.7% (gptj) and +31.8% (starcoder2). The run finds the layers itself:

- **blocks**, which FSDP2 shards and checkpointing recomputes, by the classes that the architecture names as whole
  (`_no_split_modules`), else the largest list of modules;
- **`adapter.targets: all-linear`**: all linear layers but the head. Experts that are kept as one parameter, routers, and what Mamba's
  kernels read past PEFT are left out; `embed_tokens` and `lm_head` of `adapter.modules_to_save` are the model's own, whatever it
  calls them;
- **attention**: transformers' own choice, which is SDPA where there is one.

Rows are not packed, the loss is transformers' own and nothing is compiled, unless the spec says so. Preflight builds the model without
weights and says how far the plan is off, and what cannot be: encoders, encoders with decoders, recomputation where the code has
none, packed rows where a state goes from token to token, blocks that share weights under FSDP2. Before the first step it is tried
that no token sees those after it.

Tried with transformers {version}, at sizes of a second with random weights on a CPU: spec, plan, bundle, preflight, data, two steps,
merge, and an export to safetensors whose logits are the trained model's. {done} of {tried} model types were trained whole and with
LoRA. *Planned*: parameters of the plan over those there are, at these sizes, where vocabulary and norms weigh more than in a
published model.

| model_type | class | parameters | planned | whole | LoRA |
|---|---|---:|---:|:-:|:-:|
"""


def main(arguments: list[str]) -> int:
    import transformers
    from axoc.facts.families.registry import MODEL_TYPES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    transformers.logging.set_verbosity_error()
    given = _parser().parse_args(arguments)
    wanted = given.model_types or [m for m in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if m not in MODEL_TYPES]
    rows = _read(given.results)
    if missing := [m for m in wanted if m not in rows]:
        _try(missing, rows, given.results)
    PAGE.write_text(page(rows, transformers.__version__), encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("model_types", nargs="*", metavar="MODEL_TYPE")
    made.add_argument("--results", type=Path, default=ROOT / "build" / "architectures.json")
    return made


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _try(model_types: list[str], rows: dict[str, Any], results: Path) -> None:
    import forked

    results.parent.mkdir(parents=True, exist_ok=True)
    server = forked.Server(forked.environment())
    for model_type in model_types:
        with tempfile.TemporaryDirectory() as folder:
            rows[model_type] = tried(server, Path(folder), model_type)
        results.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(model_type, rows[model_type], flush=True)
    server.close()


def tried(server: Any, work: Path, model_type: str) -> dict[str, Any]:
    """``error`` where it cannot be made so small; else what became of it whole and with LoRA, None where all went well."""
    import architectures
    from runtime.conftest import make_tokenizer

    questions = [{"question": f"{a}+{b}?", "answer": str(a + b)} for a in range(5) for b in range(8)]
    (work / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    try:
        if (size := architectures.size_of(model_type)) > LARGEST:
            return {"error": f"{size:,} parameters at the sizes it was given"}
        parameters = architectures.make_model(model_type, work / "model", make_tokenizer())
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"}
    found: dict[str, Any] = {"class": architectures.config_of(model_type).architectures[0], "parameters": parameters}
    for adapter in ("none", "lora"):
        found[adapter] = _one(server, work, adapter, found)
    shutil.rmtree(work / "model")
    return found


def _one(server: Any, work: Path, adapter: str, found: dict[str, Any]) -> str | None:
    import architectures

    try:
        job = architectures.make_bundle(work, "one", adapter=adapter)
        found["planned"] = json.loads(job.read_text())["expect"]["parameters"]
        architectures.run(server, work, job)
    except Exception as error:
        return reason(str(error))
    return None


def reason(told: str) -> str:
    """The line that says why, of all that was printed."""
    errors = [line for line in told.splitlines() if "error 1" in line or "rank 0:" in line]
    last = (errors or told.splitlines() or ["?"])[-1]
    return re.sub(r"^(  error \d+ +|axoc: rank 0: )", "", last).split("  ")[0][:160]


def page(rows: dict[str, Any], version: str) -> str:
    made = {name: row for name, row in rows.items() if "error" not in row}
    done = sum(row["none"] is None and row["lora"] is None for row in made.values())
    lines = [_line(name, row) for name, row in sorted(made.items())]
    told = sorted({f"- {name}: {row[a]}" for name, row in made.items() for a in ("none", "lora") if row[a]})
    absent = [f"- {name}: {row['error']}" for name, row in sorted(rows.items()) if "error" in row]
    parts = [
        HEAD.format(version=version, done=done, tried=len(made)) + "\n".join(lines),
        "",
        "## Refused, or failed",
        "",
    ]
    return "\n".join([*parts, *told, "", "## Not tried: no configuration so small was found", "", *absent]) + "\n"


def _line(name: str, row: dict[str, Any]) -> str:
    ticks = ["✓" if row[adapter] is None else "see below" for adapter in ("none", "lora")]
    share = f"{row['planned'] / row['parameters'] - 1:+.0%}" if "planned" in row else ""
    return f"| {name} | {row['class']} | {row['parameters']:,} | {share} | {' | '.join(ticks)} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
