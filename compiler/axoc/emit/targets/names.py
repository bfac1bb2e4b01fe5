"""A run's name as other programs allow names: their own rules, and nothing that they or a shell act on."""

from __future__ import annotations

import re

FALLBACK = "axoc"


def plain_name(name: str, longest: int = 64) -> str:
    """Letters, digits, dots, underscores and hyphens; what else there is becomes a hyphen."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:longest].rstrip("-._") or FALLBACK


def dns_name(name: str, longest: int) -> str:
    """A DNS label that begins with a letter (RFC 1035), as Kubernetes' services need it."""
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    label = label if label[:1].isalpha() else f"{FALLBACK}-{label}".strip("-")
    return label[:longest].strip("-")
