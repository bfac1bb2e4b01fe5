"""Source files that a bundle carries: the runtime, the launcher's helpers, the user's plugins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Final

from axoc.errors import Diagnostic, UserError
from axoc.ir.bundle import BundleFile

RUNTIME_PACKAGE: Final = "axoc_runtime"
RUNTIME_NAMES: Final = (".py", "py.typed")
PLUGIN_SUFFIXES: Final = (".py", ".toml", ".md", ".cfg", ".json", ".txt", ".typed")
SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")


def runtime_files() -> list[BundleFile]:
    """The runtime's sources, found without importing them: the compiler never imports torch.

    Raises UserError where axoc-runtime is not installed.
    """
    spec = find_spec(RUNTIME_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            Diagnostic(
                message="axoc-runtime is not installed: a bundle carries its sources", fix="pip install axoc-runtime"
            )
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    found = {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.name.endswith(RUNTIME_NAMES)}
    return [_file(f"runtime/{RUNTIME_PACKAGE}/{name}", path.read_bytes()) for name, path in sorted(found.items())]


def launcher_files() -> list[BundleFile]:
    """launch.sh and what it calls. They are the same in every bundle: what differs stands in config/launch.env."""
    package = files("axoc_templates")
    helpers = sorted(f.name for f in (package / "launch").iterdir() if f.name.endswith((".py", ".sh")))
    entry = BundleFile(path="launch.sh", content=(package / "launch.sh").read_bytes(), executable=True)
    return [entry, *(_file(f"launch/{name}", (package / "launch" / name).read_bytes()) for name in helpers)]


def plugin_files(plugins: Mapping[str, Mapping[str, bytes]]) -> list[BundleFile]:
    """``plugins/<folder name>/<path>`` for each plugin. Raises UserError for a path that could leave its folder."""
    problems = [p for name, contents in sorted(plugins.items()) for p in _plugin_problems(name, contents)]
    if problems:
        raise UserError(*problems)
    return [
        _file(f"plugins/{name}/{path}", content)
        for name, contents in sorted(plugins.items())
        for path, content in sorted(contents.items())
    ]


def _plugin_problems(name: str, contents: Mapping[str, bytes]) -> list[Diagnostic]:
    if not SAFE_NAME.fullmatch(name):
        return [_bad_plugin(name, "the folder's name", "letters, digits, '.', '_' and '-' only")]
    problems = [
        _bad_plugin(
            f"{name}/{path}", "a file's path", f"a relative path of plain names ending in {', '.join(PLUGIN_SUFFIXES)}"
        )
        for path in sorted(contents)
        if not _is_safe(path)
    ]
    if not {"pyproject.toml", "setup.py", "setup.cfg"} & set(contents):
        problems.append(
            _bad_plugin(name, "the folder", "a Python package with a pyproject.toml that names its entry points")
        )
    return problems


def _is_safe(path: str) -> bool:
    parts = PurePosixPath(path).parts
    plain = bool(parts) and all(SAFE_NAME.fullmatch(part) for part in parts)
    return plain and path == "/".join(parts) and path.endswith(PLUGIN_SUFFIXES)


def _bad_plugin(where: str, what: str, expected: str) -> Diagnostic:
    return Diagnostic(message=f"plugin {where!r}: {what} cannot go into a bundle", expected=expected)


def _file(path: str, content: bytes) -> BundleFile:
    return BundleFile(path=path, content=content)
