"""The model card of an exported folder: what it is, how to load it, who checked it, and what it was made from."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from axoc_runtime.exports.licences import licence_lines
from axoc_runtime.exports.source import PROVENANCE, Source

if TYPE_CHECKING:
    from axoc_runtime.exports.one import Outcome
    from axoc_runtime.exports.request import Request


def card(source: Source, request: Request, outcome: Outcome) -> str:
    """Markdown, with the front matter that hubs read. Values of the run stand in code spans: they are data."""
    run, metrics = _read(source, f"{PROVENANCE}/run.json"), _read(source, "metrics.json")
    base = run.get("base", {})
    parts = [
        _front_matter(base),
        f"# {_code(run.get('name') or source.run.name)}, {outcome.name}",
        "",
        f"Exported by axoc in the format {outcome.name}.",
        *_section("Load it", _fenced(request.exporter.usage(source, request.variant))),
        *_section("Checked", checked(source, outcome)),
        *_section("Measured", measured(metrics)),
        *_section("Made from", provenance(source, run)),
        *_section("Licence", licence_lines(base, _code)),
    ]
    return "\n".join(parts).rstrip() + "\n"


def checked(source: Source, outcome: Outcome) -> list[str]:
    lines = [f"- By: {outcome.checked_by}"]
    if outcome.measured is not None:
        found = outcome.measured
        lines.append(f"- On {found.tokens:,} tokens of {source.measured_on}")
        if found.perplexity is not None and found.perplexity_difference is not None:
            lines.append(
                f"- Perplexity {found.perplexity:.5g}, {found.perplexity_difference:+.3%} from the trained model's"
            )
        lines.append(f"- Logits {found.logits_difference:.3%} from the trained model's, as norms")
        lines.append(f"- The same most likely token at {found.same_top_token:.1%} of the positions")
    return [*lines, *(f"- {note}" for note in outcome.notes)]


def measured(metrics: dict[str, Any]) -> list[str]:
    """Before and after training, on what was held out."""
    names = [k.removesuffix("_after") for k in metrics if k.endswith("_after") and metrics[k] is not None]
    return [
        f"- {n}: {_figure(metrics.get(f'{n}_before'))} before training, {_figure(metrics[f'{n}_after'])} after"
        for n in names
    ]


def provenance(source: Source, run: dict[str, Any]) -> list[str]:
    base, bundle = run.get("base", {}), _read(source, f"{PROVENANCE}/axoc.bundle.json")
    lines = [
        f"- Base model: {_code(base.get('id'))}" + (f" at {_code(base['revision'])}" if base.get("revision") else "")
    ]
    lines += [f"- Objective: {run['objective']}"] if run.get("objective") else []
    lines += [f"- Adapter: {run['adapter']}, merged"] if run.get("adapter") else []
    lines += [f"- Spec: {_code(run['spec_digest'])}"] if run.get("spec_digest") else []
    lines += [f"- Lock: {_code(found)}"] if (found := _digest(source, "spec.lock")) else []
    lines += [f"- Bundle: {_code(bundle['bundle_digest'])}"] if bundle.get("bundle_digest") else []
    for dataset in run.get("data", []):
        prints = ", ".join(_code(p) for p in dataset["fingerprints"][:4])
        lines.append(f"- Data: {_code(dataset['path'])} {prints}")
    lines += [f"- axoc {run['axoc_version']}; spec.yaml and spec.lock lie in the run's {PROVENANCE}/"] if run else []
    return lines


def _front_matter(base: dict[str, Any]) -> str:
    known = {"license": base.get("licence"), "base_model": base.get("id")}
    lines = [f"{key}: {json.dumps(value)}" for key, value in known.items() if value]
    return "\n".join(["---", *lines, "---", ""]) if lines else ""


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", f"## {title}", "", *lines] if lines else []


def _fenced(text: str) -> list[str]:
    return ["```", *text.splitlines(), "```"] if text else []


def _code(value: Any) -> str:
    return "unknown" if value is None else f"`{str(value).replace('`', '')}`"


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else "unknown"


def _digest(source: Source, name: str) -> str | None:
    """Of a file that the run kept."""
    path = source.run / PROVENANCE / name
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" if path.is_file() else None


def _read(source: Source, name: str) -> dict[str, Any]:
    try:
        found = json.loads((source.run / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
