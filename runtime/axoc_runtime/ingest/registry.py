"""Which format reads what. Built-ins are a static table: a bundle carries sources, not an installed distribution.
Plugins come from entry points, and one of the same name overrides the built-in.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from axoc_runtime.errors import EXIT_DATA, RuntimeFailure
from axoc_runtime.ingest.base import Reader, Schema

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
    "sharegpt": f"{_PACKAGE}.schemas.sharegpt:ShareGpt",
    "chat": f"{_PACKAGE}.schemas.chat:Chat",
    "question_answer": f"{_PACKAGE}.schemas.question_answer:QuestionAnswer",
    "completion": f"{_PACKAGE}.schemas.completion:Completion",
    "preference": f"{_PACKAGE}.schemas.preference:PreferencePairs",
    "rated": f"{_PACKAGE}.schemas.rated:RatedAnswers",
    "prompts": f"{_PACKAGE}.schemas.prompts:Prompts",
}
"""Format name -> ``module:Class``."""

Format = Reader | Schema


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


def schema_for(columns: frozenset[str], place: str, accepted: tuple[type, ...] = ()) -> Schema:
    """The one schema that these columns fit; of several, those that make what is ``accepted``.

    Raises RuntimeFailure where there is none, or more than one.
    """
    fitting = [s for s in schemas() if s.fits(columns)]
    wanted = [s for s in fitting if s.makes is None or issubclass(s.makes, accepted)]
    fitting = wanted or fitting
    if len(fitting) == 1:
        return fitting[0]
    shown = ", ".join(sorted(columns))
    if fitting:
        names = " or ".join(s.name for s in fitting)
        raise RuntimeFailure(
            f"{place}: the columns {shown} fit several formats", EXIT_DATA, f"set dataset.type: {names}"
        )
    known = "; ".join(f"{s.name}: {', '.join(s.columns) or 'see its page'}" for s in schemas())
    message = f"{place}: no known format has the columns {shown}"
    raise RuntimeFailure(message, EXIT_DATA, f"rename columns, or add a format as a plugin; known are {known}")


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
