"""The one user of Jinja2. Values from a spec are data: escaped on the way out, never part of a template."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined

MARKDOWN: Final = re.compile(r"[\\`*\[\]|<>~&$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""What Markdown, GitHub's maths, or a table would act on. An underscore inside a word is safe."""


def render(template: str, **values: Any) -> str:
    """The packaged template with these values. A name that is missing is an error, not an empty string."""
    return _environment(html=template.endswith(".html.j2")).get_template(template).render(**values)


def markdown_text(value: object) -> str:
    """Inert text of one line: for a paragraph, or a cell of a table."""
    one_line = " ".join(str(value).split())
    return MARKDOWN.sub(lambda match: "\\" + match.group(0), one_line).replace("://", ":\\//")


@cache
def _environment(*, html: bool) -> Environment:
    """It keeps the templates it has compiled."""
    environment = Environment(
        loader=FunctionLoader(_packaged),
        undefined=StrictUndefined,
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = markdown_text
    return environment


def _packaged(name: str) -> str:
    return (files("axoc_templates") / name).read_text(encoding="utf-8")
