"""The profile's table, on a terminal and as Markdown, its JSON, plot and the spec that it recommends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from axoc_runtime.files import write_json, write_text
from axoc_runtime.quantize.attention import Attention
from axoc_runtime.quantize.plot import plot
from axoc_runtime.quantize.recommend import Advice, spec_text
from axoc_runtime.quantize.rows import Row
from axoc_runtime.quantize.settings import Settings, libraries

SCHEMA_VERSION: Final = 1
TITLES: Final = (
    "method", "size MB", "peak MB", "read tok/s", "write tok/s", "perplexity", "change", "95% interval", "same top", "windows",
    "run by",
)  # fmt: skip
FILES: Final = ("profile.md", "profile.json", "profile.svg", "recommended.yaml")


@dataclass(frozen=True, kw_only=True)
class Profile:
    settings: Settings
    device: str
    attention: Attention
    measured_on: str
    most_lost: float
    rows: Sequence[Row]
    advice: Advice


def write_report(profile: Profile) -> None:
    folder = Path(profile.settings.output)
    write_text(folder / "profile.md", markdown(profile))
    write_json(folder / "profile.json", as_dict(profile))
    write_text(folder / "profile.svg", plot(profile.rows, headline(profile)))
    write_text(folder / "recommended.yaml", spec_text(profile.settings.model_id, profile.advice))


def as_dict(profile: Profile) -> dict[str, Any]:
    advice = profile.advice
    return {
        "schema_version": SCHEMA_VERSION,
        "model": profile.settings.model_id,
        "device": profile.device,
        "libraries": libraries(),
        "attention": asdict(profile.attention),
        "measured_on": profile.measured_on,
        "settings": asdict(profile.settings),
        "most_lost": profile.most_lost,
        "rows": [row.as_dict() for row in profile.rows],
        "recommended": {
            "serve": None if advice.serve is None else advice.serve.method.written,
            "serve_why": advice.serve_why,
            "train": None if advice.train is None else advice.train.method.trained_as,
            "train_why": advice.train_why,
        },
    }


def headline(profile: Profile) -> str:
    a, s = profile.attention, profile.settings
    cache = f"{a.cache_bytes_per_token / 1024:,.1f} KiB of cache a token"
    kind = f"{a.kind} ({a.heads} heads, {a.kv_heads} of keys and values; {cache})"
    return f"{Path(s.model_id).name} on {profile.device}, {kind}"


def markdown(profile: Profile) -> str:
    s, lines = profile.settings, [f"# Quantization of {headline(profile)}", ""]
    lines += [f"Held-out text: {profile.measured_on}; {s.windows} windows of {s.window_tokens} tokens at most.", ""]
    lines += [_row(TITLES), _row(["---", *["---:"] * (len(TITLES) - 2), "---"])]
    lines += [_row(cells(row)) for row in profile.rows]
    lines += ["", *(f"- {line}" for line in remarks(profile)), "", "![The same as a picture](profile.svg)", ""]
    lines += ["```yaml", spec_text(s.model_id, profile.advice).rstrip(), "```", ""]
    return "\n".join(lines)


def _row(values: Sequence[str]) -> str:
    return "| " + " | ".join(v.replace("|", "\\|").replace("\n", " ") for v in values) + " |"


def table(profile: Profile) -> str:
    """For a terminal: columns as wide as they must be."""
    rows = [TITLES, *(cells(row) for row in profile.rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(TITLES))]
    left = (0, len(TITLES) - 1)
    shown = [
        "  ".join(v.ljust(w) if i in left else v.rjust(w) for i, (v, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return "\n".join([headline(profile), "", *(line.rstrip() for line in shown), "", *remarks(profile)])


def cells(row: Row) -> tuple[str, ...]:
    name = row.method.name
    if row.measured is None:
        return (name, *[""] * (len(TITLES) - 2), "not measured: see below")
    c = row.change
    return (
        name,
        f"{row.size_bytes / 1e6:,.1f}",
        f"{row.peak_bytes / 1e6:,.0f}" + ("" if row.measured["on_gpu"] else " host"),
        _speed(row.read_speed),
        _speed(row.write_speed),
        f"{row.perplexity:.4g}",
        "" if c is None else f"{c.value:+.2%}",
        "" if c is None else f"{c.low:+.2%} to {c.high:+.2%}",
        "" if row.same_top is None else f"{row.same_top:.1%}",
        str(row.windows),
        row.measured["runner"],
    )


def _speed(found: dict[str, float] | None) -> str:
    """With how far the measurements lie apart: half of the range, of the median."""
    if found is None:
        return ""
    spread = (found["fastest"] - found["slowest"]) / 2 / found["median"]
    return f"{found['median']:,.0f} ±{spread:.0%}"


def remarks(profile: Profile) -> list[str]:
    """What to take and why, notes that rows share, errors with their fixes."""
    by_note: dict[str, list[str]] = {}
    for row in profile.rows:
        for note in row.notes:
            by_note.setdefault(note, []).append(row.method.name)
    notes = [f"{', '.join(names)}: {note}" for note, names in by_note.items()]
    errors = [f"{r.method.name}: {r.error}" + (f" (fix: {r.fix})" if r.fix else "") for r in profile.rows if r.error]
    advice = profile.advice
    return [f"To serve: {advice.serve_why}", f"To train an adapter: {advice.train_why}", *notes, *errors]
