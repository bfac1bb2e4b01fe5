"""Writes docs/rules.md from the rules and from the table of pitfalls. Run by `make golden`."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Final

from axoc.search.rules import BUILT_IN, PINS, Rule
from axoc.search.rules.pitfalls import MET_BY, Pitfall, pitfalls

ROOT: Final = Path(__file__).resolve().parent.parent
TARGET: Final = ROOT / "docs/rules.md"
HEAD: Final = """# Rules

Made from `compiler/axoc/search/rules/`: do not edit. A rule refuses a combination that would break, waste or mislead, with
a stable id, the reason, the smallest fix and public evidence. What is left on `auto` is chosen around it, and the decision
says by which rule the others are ruled out. A rule says in which releases the combination fails: from the first one it was
reported of until the first one in which it was seen not to. Where the versions that bundles pin no longer fail, the rule is
not enforced. Rules of your own: [plugins](plugins.md#a-rule).
"""


def document() -> str:
    return "\n".join([HEAD, _pins(), _rules(), _pitfalls(), _proof()])


def _pins() -> str:
    pinned = ", ".join(f"{library} {' or '.join(versions)}" for library, versions in PINS.items())
    return f"Pinned: {pinned}.\n"


def _rules() -> str:
    rows = [_cells(f'<a id="{r.id}"></a>`{r.id}`', _state(r), r.applies_to, r.fix, _link(r.link)) for r in BUILT_IN]
    title = f"## {len(BUILT_IN)} rules of the planner\n"
    return "\n".join(
        [title, _cells("rule", "", "fails with", "smallest fix", "evidence"), "|---|---|---|---|---|", *rows, ""]
    )


def _state(rule: Rule) -> str:
    return "enforced" if rule.enforced else "past"


def _pitfalls() -> str:
    found = pitfalls()
    counts = Counter(p.met_by for p in found)
    kinds = [f"- **{kind}** ({counts[kind]}): {meaning}" for kind, meaning in MET_BY.items()]
    head = [_cells("#", "what broke real runs", "met by", "fails with", "how it stands", "smallest fix", "evidence")]
    title = f"## {len(found)} pitfalls, and how each is met\n"
    return "\n".join([title, *kinds, "", *head, "|--:|---|---|---|---|---|---|", *map(_pitfall, found), ""])


def _pitfall(p: Pitfall) -> str:
    met = ", ".join([f"**{p.met_by}**", *(f"`{rule}`" for rule in p.rules)])
    versions = "; ".join(map(str, p.versions)) or "all"
    return _cells(str(p.number), f"`{p.id}`: {p.what}", met, versions, p.now, p.fix, " ".join(map(_link, p.links)))


def _proof() -> str:
    rows = [_cells(str(p.number), _codes(p.places), _codes(p.tests)) for p in pitfalls()]
    title = "## Where in the code, and which test proves it\n"
    return "\n".join([title, _cells("#", "place", "test"), "|--:|---|---|", *rows, ""])


def _codes(items: tuple[str, ...]) -> str:
    return "<br>".join(f"`{item}`" for item in items)


def _link(url: str | None) -> str:
    """By the issue's number where there is one, else by the file's name."""
    if url is None:
        return ""
    issue = re.fullmatch(r"https://github\.com/[^/]+/([^/]+)/(?:issues|pull)/(\d+)", url)
    name = f"{issue[1]} {issue[2]}" if issue else url.rstrip("/").rpartition("/")[2]
    return f"[{name}]({url})"


def _cells(*cells: str) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def main() -> int:
    TARGET.write_text(document(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
