"""Which format reads what. Built-ins are a static table: a bundle carries sources, not an installed distribution.
Plugins come from entry points, and one of the same name overrides the built-in.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from axoc_runtime.errors import EXIT_DATA, RuntimeFailure
from axoc_runtime.ingest.base import Reader, Schema, columns_of

GROUP: Final = "axoc_runtime.dataset_formats"
_PACKAGE: Final = "axoc_runtime.ingest"
AUTO: Final = "auto"

BUILTIN: Final[dict[str, str]] = {
    "jsonl": f"{_PACKAGE}.readers.json_files:JsonLines",
    "json": f"{_PACKAGE}.readers.json_files:Json",
    "csv": f"{_PACKAGE}.readers.tables:Csv",
    "tsv": f"{_PACKAGE}.readers.tables:Tsv",
    "parquet": f"{_PACKAGE}.readers.arrow_files:Parquet",
    "arrow": f"{_PACKAGE}.readers.arrow_files:Arrow",
    "text": f"{_PACKAGE}.readers.text:Text",
    "markdown": f"{_PACKAGE}.readers.markdown:Markdown",
    "html": f"{_PACKAGE}.readers.html:Html",
    "warc": f"{_PACKAGE}.readers.warc:Warc",
    "sqlite": f"{_PACKAGE}.readers.databases:Sqlite",
    "postgres": f"{_PACKAGE}.readers.databases:Postgres",
    "saved": f"{_PACKAGE}.readers.saved:Saved",
    "hub": f"{_PACKAGE}.readers.hub:Hub",
    "alpaca": f"{_PACKAGE}.schemas.alpaca:Alpaca",
    "alpaca_system": f"{_PACKAGE}.schemas.alpaca:AlpacaSystem",
    "alpaca_chat": f"{_PACKAGE}.schemas.alpaca:AlpacaChat",
    "sharegpt": f"{_PACKAGE}.schemas.sharegpt:ShareGpt",
    "chat": f"{_PACKAGE}.schemas.chat:Chat",
    "openai_tools": f"{_PACKAGE}.schemas.chat:OpenAiTools",
    "anthropic_tools": f"{_PACKAGE}.schemas.anthropic:AnthropicTools",
    "openassistant": f"{_PACKAGE}.schemas.openassistant:OpenAssistant",
    "openassistant_messages": f"{_PACKAGE}.schemas.openassistant:OpenAssistantMessages",
    "dolly": f"{_PACKAGE}.schemas.dolly:Dolly",
    "orca": f"{_PACKAGE}.schemas.orca:Orca",
    "question_answer": f"{_PACKAGE}.schemas.question_answer:QuestionAnswer",
    "context_answer": f"{_PACKAGE}.schemas.context_answer:ContextAnswer",
    "summary": f"{_PACKAGE}.schemas.summary:Summary",
    "rationale": f"{_PACKAGE}.schemas.rationale:Rationale",
    "completion": f"{_PACKAGE}.schemas.completion:Completion",
    "raw_text": f"{_PACKAGE}.schemas.raw_text:RawText",
    "segments": f"{_PACKAGE}.schemas.segments:InputOutput",
    "tokenized": f"{_PACKAGE}.schemas.tokenized:Tokenized",
    "preference": f"{_PACKAGE}.schemas.preference:PreferencePairs",
    "argilla": f"{_PACKAGE}.schemas.argilla:Argilla",
    "intel": f"{_PACKAGE}.schemas.intel:Intel",
    "ultrafeedback": f"{_PACKAGE}.schemas.ultrafeedback:UltraFeedback",
    "reward_pairs": f"{_PACKAGE}.schemas.reward_pairs:RewardPairs",
    "rated": f"{_PACKAGE}.schemas.rated:RatedAnswers",
    "stepwise": f"{_PACKAGE}.schemas.stepwise:Stepwise",
    "prompts": f"{_PACKAGE}.schemas.prompts:Prompts",
    "vision_chat": f"{_PACKAGE}.schemas.vision:VisionChat",
    "vision_qa": f"{_PACKAGE}.schemas.vision:VisionQa",
}
"""Format name -> ``module:Class``."""

Format = Reader | Schema


class NoFormat(RuntimeFailure):
    """No schema has a row's columns."""


@cache
def formats() -> dict[str, Format]:
    """All formats by name, plugins first. Raises RuntimeFailure where a plugin cannot be loaded."""
    plugins = {p.name: _made(p) for p in sorted(entry_points(group=GROUP), key=lambda p: p.name) if not _own(p)}
    builtin = {name: _load(target) for name, target in BUILTIN.items() if name not in plugins}
    return plugins | builtin


def readers() -> list[Reader]:
    return [f for f in formats().values() if isinstance(f, Reader)]


def schemas() -> list[Schema]:
    return [f for f in formats().values() if isinstance(f, Schema)]


def named(name: str) -> Format | None:
    """The format of that name; None for auto. Raises RuntimeFailure with what there is."""
    if name == AUTO:
        return None
    known = formats()
    if name not in known:
        close = get_close_matches(name, known, n=1, cutoff=0.5)
        fix = f"did you mean {close[0]}?" if close else f"known: auto, {', '.join(sorted(known))}"
        raise RuntimeFailure(f"dataset.type {name!r} is not a dataset format", EXIT_DATA, fix)
    return known[name]


def reader_for(written: str, suffix: str) -> Reader | None:
    """By the path's scheme, else by the file's suffix."""
    scheme = written.partition(":")[0]
    for reader in readers():
        if reader.scheme is not None and reader.scheme == scheme and ":" in written:
            return reader
    return next((r for r in readers() if suffix.lower() in r.suffixes), None)


def schema_of(row: Mapping[str, Any], place: str, accepted: tuple[type, ...] = ()) -> Schema:
    """The one schema that this row fits; of several, those that make what is ``accepted``.

    Raises RuntimeFailure where there is none, or more than one.
    """
    return _only([s for s in schemas() if s.recognizes(row)], columns_of(row), place, accepted)


def schema_for(columns: frozenset[str], place: str, accepted: tuple[type, ...] = ()) -> Schema:
    """The same from the names of the columns alone."""
    return _only([s for s in schemas() if s.fits(columns)], columns, place, accepted)


def _only(fitting: list[Schema], columns: frozenset[str], place: str, accepted: tuple[type, ...]) -> Schema:
    wanted = [s for s in fitting if s.makes is None or issubclass(s.makes, accepted)]
    fitting = _most_specific(wanted or fitting)
    if len(fitting) == 1:
        return fitting[0]
    shown = ", ".join(sorted(columns))
    if fitting:
        names = " or ".join(s.name for s in fitting)
        raise RuntimeFailure(
            f"{place}: the columns {shown} fit several formats", EXIT_DATA, f"set dataset.type: {names}"
        )
    known = "; ".join(f"{s.name}: {', '.join(s.columns) or 'see docs/formats.md'}" for s in schemas())
    message = f"{place}: no known format has the columns {shown}"
    fix = _misspelt(columns) or "rename columns"
    raise NoFormat(message, EXIT_DATA, f"{fix}, or add a format as a plugin; known are {known}")


def _misspelt(columns: frozenset[str]) -> str | None:
    """The one column with another name of which a format would be recognized."""
    known = sorted({c for s in schemas() for c in s.columns} - columns)
    pairs = [(c, near) for c in sorted(columns) for near in get_close_matches(c, known, n=1, cutoff=0.75)]
    fitting = [p for p in pairs if any(s.columns and s.fits(columns - {p[0]} | {p[1]}) for s in schemas())]
    return f"rename {fitting[0][0]} to {fitting[0][1]}" if fitting else None


def _most_specific(fitting: list[Schema]) -> list[Schema]:
    """Without those whose columns another one has and adds to: the row is unmistakably the other's."""
    return [s for s in fitting if not s.columns or not any(set(s.columns) < set(o.columns) for o in fitting)]


def _own(point: EntryPoint) -> bool:
    return BUILTIN.get(point.name) == point.value


def _load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)()


def _made(point: EntryPoint) -> Any:
    """A broken plugin is named, not passed over."""
    try:
        made = point.load()()
    except Exception as error:  # a plugin may fail in any way
        message = f"the dataset plugin {point.name!r} ({point.value}) cannot be loaded: {type(error).__name__}: {error}"
        raise RuntimeFailure(message, EXIT_DATA, "repair or remove the plugin") from error
    if not isinstance(made, Reader | Schema):
        message = f"the dataset plugin {point.name!r} ({point.value}) is neither a Reader nor a Schema"
        raise RuntimeFailure(message, EXIT_DATA, "subclass one of axoc_runtime.ingest.base")
    return made
