"""What PyYAML says of a text that is not YAML, in words that help."""

from __future__ import annotations

import re
from typing import Any, Final

from axoc.errors import Diagnostic

_QUOTE: Final = "put the whole value in quotes"
_WORDS: Final = (
    # a pattern of PyYAML's problem, what is wrong, the smallest fix
    (r"found character '\\t'", "a tab indents this line", "indent with spaces"),
    (r"found character '([^']+)' that cannot start", "a value cannot begin with {}", _QUOTE),
    (r"mapping values are not allowed", "a second colon, or a key indented under a value", f"{_QUOTE}, or unindent"),
    (r"could not find expected ':'", "a line with no colon", "write key: value; continue long text under key: >-"),
    (r"expected <block end>, but found", "this line is indented like none before it", "align the keys of a mapping"),
    (r"expected ',' or '([]}])'", "a bracket is not closed, or a comma is missing", "close it with {}"),
    (r"expected the node content, but found '(.)'", "{} where a value is expected", "see that brackets pair up"),
    (r"found unexpected end of stream", "a quote is not closed", "end the text with the quote it begins with"),
    (r"found unexpected document separator", "a quote is not closed", "end the text with the quote it begins with"),
    (
        r"found unknown escape character '(.)'",
        "unknown escape \\{} in a text",
        "use single quotes, or double the backslash",
    ),
    (r"but found another document", "a second document begins here", "keep one document in a file"),
    (r"found undefined tag handle", "an unknown tag (!name)", "remove it"),
    (r"found duplicate anchor", "an anchor (&name) is given twice", "remove the anchors"),
    (r"recursion|nested", "nested too deeply", "see whether a bracket is left open"),
)


def syntax_diagnostic(error: Exception, file: str) -> Diagnostic:
    """``error`` is PyYAML's, or what Python raises while PyYAML works."""
    problem = str(getattr(error, "problem", None) or error or "cannot be read").splitlines()[0][:120]
    message, fix = _words(problem)
    mark = _mark(error)
    line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
    return Diagnostic(message=f"not YAML: {message}", file=file, line=line, column=column, fix=fix)


def _words(problem: str) -> tuple[str, str]:
    for pattern, message, fix in _WORDS:
        match = re.search(pattern, problem)
        if match:
            return message.format(*match.groups()), fix.format(*match.groups())
    return problem, "see that colons, quotes, brackets and indentation are as in the examples"


def _mark(error: Exception) -> Any:
    """Where a quote or bracket opened says more than the end of the file, where its absence is noticed."""
    unclosed = "unexpected" in str(getattr(error, "problem", ""))
    first, second = ("context_mark", "problem_mark") if unclosed else ("problem_mark", "context_mark")
    return getattr(error, first, None) or getattr(error, second, None)
