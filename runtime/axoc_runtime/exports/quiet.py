"""Builders and quantizers print a line a layer, and libraries warn of each other: a run says what it does in a line."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Nothing below an error is shown of what Python code says inside."""
    logging.disable(logging.WARNING)
    said = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
