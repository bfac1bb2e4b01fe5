"""`pydoc:stdlib`: what the functions of the installed Python do, from their docstrings, as questions and answers.

Real text that every machine has. It is read with `ast`: nothing is imported or run.
"""

import ast
import hashlib
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from axoc_runtime.ingest.base import Reader, Record, Source


class Docstrings(Reader):
    """`dataset.path: pydoc:stdlib`, or `pydoc:FOLDER` for your own code."""

    name = "docstrings"
    scheme = "pydoc"

    def read(self, source: Source) -> Iterator[Record]:
        root = _root(source.written)
        for path in sorted(root.rglob("*.py")):
            module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            if not {"test", "tests", "idlelib", "site-packages", "lib2to3"} & set(path.parts):
                yield from _module(path, module)

    def fingerprint(self, source: Source) -> str:
        root = _root(source.written)
        seen = f"{root}, Python {sys.version}, {max(p.stat().st_mtime_ns for p in root.glob('*.py'))}"
        return hashlib.sha256(seen.encode()).hexdigest()[
            :16
        ]  # cards print it: folders of a machine are nobody's business


def _root(written: str) -> Path:
    name = written.removeprefix("pydoc:")
    return Path(sysconfig.get_path("stdlib") if name == "stdlib" else name)


def _module(path: Path, module: str) -> Iterator[Record]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old code has invalid escapes
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            text = (ast.get_docstring(node) or "").split(">>>")[0].strip()  # what it says, without its examples
            if len(text) > 60:
                question = f"What does `{node.name}({ast.unparse(node.args)})` in Python's module {module} do?"
                row = {"question": question, "answer": text}
                yield Record(place=f"{path}:{node.lineno}", row=row)
