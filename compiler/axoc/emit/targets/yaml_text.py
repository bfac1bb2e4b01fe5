"""YAML that every reader takes alike: texts in quotes, so that YAML 1.1 and 1.2 cannot disagree about yes, 012 or 1:30."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml


class _Quoting(yaml.SafeDumper):
    """Without anchors, which not every reader follows."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"')


def _mapping(dumper: yaml.SafeDumper, value: dict[str, Any]) -> yaml.Node:
    """Keys plain where they are the engine's own words."""
    node = dumper.represent_mapping("tag:yaml.org,2002:map", value)
    for key, _ in node.value:
        if key.value.replace("_", "").isalpha() and not _is_word(key.value):
            key.style = None
    return node


def _is_word(text: str) -> bool:
    """One that some YAML takes for a boolean or for nothing."""
    return text.lower() in {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


_Quoting.add_representer(str, _text)
_Quoting.add_representer(dict, _mapping)


def yaml_documents(comment: str, documents: Iterable[Any]) -> str:
    """``comment``: lines of ours, without anything of a spec."""
    head = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
    dumped = yaml.dump_all(
        documents, Dumper=_Quoting, sort_keys=False, explicit_start=False, width=2**20, allow_unicode=False
    )
    return head + dumped
