"""A place on a store, as a URL without secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from axoc.spec.numbers import Reader
from axoc.spec.problems import wrong
from axoc.spec.scalars import is_null, show
from axoc.spec.words import Text

_SHAPE: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#]*)(/[^?#]*)?(.*)", re.DOTALL)
_READ_ONLY: Final = ("http", "https", "hf")
_CONTAINER_FIRST: Final = ("abfs", "abfss")
"""abfs://container@account.dfs.core.windows.net/path"""
_PATTERN: Final = r"^(?!(http|https|hf)://)([a-z][a-z0-9+.-]*://[^@?#]*|abfss?://[^@:?#/]*@[^@?#]*)$"
"""The same for editors."""
EXPECTED: Final = "s3://bucket/prefix, gs://…, az://… or another URL that fsspec writes to, or null"
_ENVIRONMENT: Final = "remove them: credentials come from the environment, as the store's own client reads them"


@dataclass(frozen=True)
class StoreUrl(Reader):
    """What is in a spec is in a bundle, in a review and in a log: credentials have no place there."""

    def read(self, value: Any) -> Any:
        if is_null(value):
            return None
        text = str(Text(what="a URL").read(value)).rstrip("/")
        shape = _SHAPE.fullmatch(text)
        if shape is None:
            raise wrong(f"is {show(value)}, which is no URL of a store", expected=EXPECTED, fix=self._fix(text))
        scheme, place, _, rest = shape.groups()
        user = place.rpartition("@")[0]
        if (user and scheme not in _CONTAINER_FIRST) or ":" in user or rest:
            raise wrong("holds credentials or options", expected=EXPECTED, fix=_ENVIRONMENT)
        if scheme in _READ_ONLY:
            raise wrong(f"is {show(value)}, and {scheme}:// cannot be written to", expected=EXPECTED, fix=None)
        if not place and scheme != "file":
            fix = f"write {scheme}://bucket/prefix"
            raise wrong(f"is {show(value)}, which names no bucket", expected=EXPECTED, fix=fix)
        return text

    def json(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "pattern": _PATTERN}, {"type": "null"}]}

    def _fix(self, text: str) -> str | None:
        return f"write file://{text}" if text.startswith("/") else None
