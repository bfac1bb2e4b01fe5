"""llama.cpp through its C interface: load, tokenize, logits, quantize.

The package xllamacpp carries a build of llama.cpp for every system, and wraps only its server; the library's own functions
are called here by ctypes. Of the structures of include/llama.h only the first fields are named, which have kept their place;
the rest is what llama.cpp's own functions for the defaults write into a buffer with room to spare.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from axoc_runtime.exports.base import CannotExport, Logits

ROOM_BYTES: Final = 1024
"""Of a structure of parameters: several times what any has now."""


class CannotLoad(CannotExport):
    """llama.cpp does not know what the file asks for."""


class _Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


class _ModelParameters(ctypes.Structure):
    _fields_ = (("raw", ctypes.c_uint8 * ROOM_BYTES),)


class _ContextParameters(ctypes.Structure):
    _fields_ = (
        ("n_ctx", ctypes.c_uint32),
        ("n_batch", ctypes.c_uint32),
        ("n_ubatch", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * ROOM_BYTES),
    )


_Log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_SILENT: Final = _Log(lambda *_: None)
_POINTER, _INT, _LONG = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
SIGNATURES: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "llama_log_set": (None, (_Log, _POINTER)),
    "llama_backend_init": (None, ()),
    "llama_model_default_params": (_ModelParameters, ()),
    "llama_context_default_params": (_ContextParameters, ()),
    "llama_model_load_from_file": (_POINTER, (ctypes.c_char_p, _ModelParameters)),
    "llama_model_free": (None, (_POINTER,)),
    "llama_model_get_vocab": (_POINTER, (_POINTER,)),
    "llama_vocab_n_tokens": (_INT, (_POINTER,)),
    "llama_init_from_model": (_POINTER, (_POINTER, _ContextParameters)),
    "llama_free": (None, (_POINTER,)),
    "llama_set_n_threads": (None, (_POINTER, _INT, _INT)),
    "llama_tokenize": (
        _INT,
        (_POINTER, ctypes.c_char_p, _INT, ctypes.POINTER(_INT), _INT, ctypes.c_bool, ctypes.c_bool),
    ),
    "llama_batch_init": (_Batch, (_INT, _INT, _INT)),
    "llama_batch_free": (None, (_Batch,)),
    "llama_decode": (_INT, (_POINTER, _Batch)),
    "llama_get_logits": (ctypes.POINTER(ctypes.c_float), (_POINTER,)),
    "ggml_quantize_chunk": (
        ctypes.c_size_t,
        (ctypes.c_int, ctypes.POINTER(ctypes.c_float), _POINTER, _LONG, _LONG, _LONG, ctypes.POINTER(ctypes.c_float)),
    ),
}
"""Of include/llama.h and ggml.h: what each gives, and what it takes."""


@cache
def _library() -> Any:
    """Silenced: it writes pages to standard error. Raises CannotExport where this build lacks a function."""
    import xllamacpp.xllamacpp as module

    library = ctypes.CDLL(module.__file__)
    for name, (gives, takes) in SIGNATURES.items():
        function = getattr(library, name, None)
        if function is None:
            raise CannotExport(f"xllamacpp's build of llama.cpp has no {name}", "install the version of the lock")
        function.restype, function.argtypes = gives, list(takes)
    library.llama_log_set(_SILENT, None)
    library.llama_backend_init()
    return library


def version() -> str:
    from importlib.metadata import version as installed

    return f"llama.cpp b{installed('xllamacpp').rsplit('.', 1)[-1]}"


def threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


class Loaded:
    """A GGUF file in memory. A context manager."""

    def __init__(self, file: Path) -> None:
        self.model: int | None = None
        self.library = _library()
        self.name = version()
        parameters = self.library.llama_model_default_params()
        self.model = self.library.llama_model_load_from_file(str(file).encode(), parameters)
        if not self.model:
            raise CannotLoad(f"llama.cpp cannot load {file.name}")
        self.vocabulary = self.library.llama_model_get_vocab(self.model)
        self.width = int(self.library.llama_vocab_n_tokens(self.vocabulary))

    def __enter__(self) -> Loaded:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        if self.model:
            self.library.llama_model_free(self.model)
        self.model = None

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """With the tokens that begin a sequence where the file asks for them, as a user's text is read."""
        raw = text.encode()
        room = len(raw) + 16
        ids = (ctypes.c_int32 * room)()
        count = self.library.llama_tokenize(self.vocabulary, raw, len(raw), ids, room, True, special)
        if count < 0:
            raise CannotExport("llama.cpp cannot tokenize with this vocabulary")
        return [int(i) for i in ids[:count]]

    def logits(self, ids: Sequence[int]) -> Logits:
        context = self._context(len(ids))
        batch = self.library.llama_batch_init(len(ids), 0, 1)
        try:
            _fill(batch, ids)
            if self.library.llama_decode(context, batch) != 0:
                raise CannotExport("llama.cpp cannot run this model")
            found = self.library.llama_get_logits(context)
            return np.ctypeslib.as_array(found, (len(ids), self.width)).copy()
        finally:
            self.library.llama_batch_free(batch)
            self.library.llama_free(context)

    def generate(self, ids: Sequence[int], count: int) -> list[int]:
        """``count`` further tokens, each the most likely one, from the cache of those before it."""
        context = self._context(len(ids) + count)
        batch = self.library.llama_batch_init(len(ids), 0, 1)
        made: list[int] = []
        try:
            given = list(ids)
            while True:
                _fill(batch, given, len(ids) + len(made) - len(given))
                if self.library.llama_decode(context, batch) != 0:
                    raise CannotExport("llama.cpp cannot run this model")
                found = np.ctypeslib.as_array(self.library.llama_get_logits(context), (len(given), self.width))
                made.append(int(found[-1].argmax()))
                if len(made) == count:
                    return made
                given = made[-1:]
        finally:
            self.library.llama_batch_free(batch)
            self.library.llama_free(context)

    def _context(self, tokens: int) -> int:
        """For one sequence, decoded at once."""
        parameters = self.library.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = max(tokens, 32)
        context: int | None = self.library.llama_init_from_model(self.model, parameters)
        if not context:
            raise CannotExport("llama.cpp has no memory for this model")
        self.library.llama_set_n_threads(context, threads(), threads())
        return context


def _fill(batch: Any, ids: Sequence[int], first: int = 0) -> None:
    """Tokens of one sequence, from its position ``first`` on, each with its logits."""
    batch.n_tokens = len(ids)
    for index, token in enumerate(ids):
        batch.token[index], batch.pos[index] = token, first + index
        batch.n_seq_id[index], batch.seq_id[index][0], batch.logits[index] = 1, 0, 1


def quantize_rows(matrix: NDArray[np.float32], kind: int, row_bytes: int) -> NDArray[np.uint8]:
    """[rows, columns] by ggml's own kernel to ``kind`` of ggml_type: [rows, row_bytes]."""
    rows, columns = matrix.shape
    given = np.ascontiguousarray(matrix, dtype=np.float32)
    made = np.empty((rows, row_bytes), dtype=np.uint8)
    values = given.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    written = _library().ggml_quantize_chunk(kind, values, made.ctypes.data, 0, rows, columns, None)
    if written != made.nbytes:
        raise CannotExport(f"ggml wrote {written:,} bytes of a matrix that takes {made.nbytes:,}")
    return made
