"""Writes docs/compatibility.md: adapter x quantization x strategy x export, and family x export. Run by `make golden`.

    python tools/compatibility_doc.py [--check]

With --check nothing is written; the exit code is 1 where the page is not current. A test that claims what a rule refuses is
an error: one of the two is wrong.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Final

import compatibility as c

TARGET: Final = c.ROOT / "docs/compatibility.md"
WORKS, UNTESTED = "✓", "·"
HEAD: Final = f"""# What works with what

Made by `tools/compatibility_doc.py` of the rules and of the tests: do not edit. A cell says

- **{WORKS}** works: a test of this repository runs it (listed below; a test that did not run what it claims fails),
- **a rule**: refused before anything is paid for, by that rule (`{c.BY_THE_SPEC}`: when the spec is read),
- **{UNTESTED}** untested: no rule is against it, and no test runs it.

Verdicts are the planner's, on a spec for each cell: for a small Llama on H100s. On a CPU `int8` is refused too (`int8-on-cpu`),
and tests run on CPUs.
"""
Cells = tuple[str, ...]


def document() -> str:
    claims = c.claims()
    claimed = {claim for of in claims.values() for claim in of}
    parts = [HEAD, _runs(claimed), _families("Families and exports", c.formats(), claimed)]
    parts += [_families("Families and quantized exports", c.quantized_formats(), claimed), _reasons(), _tests(claims)]
    return "\n".join(parts)


def _runs(claimed: set[tuple[str, ...]]) -> str:
    lines = ["## Adapter, quantization of the base, strategy, export\n"]
    for adapter in c.ADAPTERS:
        rows = {(q, s): _row(adapter, q, s, claimed) for q, s in product(c.QUANTIZATIONS, c.strategies())}
        lines += [f"### adapter: {adapter}\n", _cells("quantization", "strategy", "trains", *c.formats())]
        lines += ["|---|---|" + ":-:|" * (1 + len(c.formats()))]
        lines += [_cells(", ".join(qs), ", ".join(ss), *cells) for qs, ss, cells in _merged(rows)]
        lines.append("")
    return "\n".join(lines)


def _row(adapter: str, quantization: str, strategy: str, claimed: set[tuple[str, ...]]) -> Cells:
    """Whether it trains, and each export of what it leaves. Raises ValueError where a claim contradicts a rule."""
    run = (adapter, quantization, strategy)
    ran = {claim[3] for claim in claimed if claim[:3] == run and len(claim) == 4}
    of_all = c.verdict(*run, *c.formats())  # where nothing is against all of them, nothing is against one, or none
    refused = of_all and c.verdict(*run)
    if refused is not None:
        _agree(run, ran, refused)
        return (_link(refused.rule), *("",) * len(c.formats()))
    exports = [of_all and c.verdict(*run, name) for name in c.formats()]
    cells = [WORKS if ran else UNTESTED]
    for name, verdict in zip(c.formats(), exports, strict=True):
        _agree((*run, name), {name} & ran, verdict)
        cells.append(_cell(name in ran, verdict))
    return tuple(cells)


def _agree(what: Iterable[str], ran: set[str], refused: c.Refused | None) -> None:
    if ran and refused is not None:
        raise ValueError(f"tests run {', '.join(what)}, which the rule {refused.rule} refuses: {refused.reason}")


def _cell(ran: bool, refused: c.Refused | None) -> str:
    return WORKS if ran else UNTESTED if refused is None else _link(refused.rule)


def _merged(rows: dict[tuple[str, str], Cells]) -> list[tuple[list[str], list[str], Cells]]:
    """(quantizations, strategies, cells): what is alike stands in one line."""
    alike: dict[tuple[tuple[str, ...], Cells], list[str]] = defaultdict(list)
    for quantization in c.QUANTIZATIONS:
        by_cells: dict[Cells, list[str]] = defaultdict(list)
        for strategy in c.strategies():
            by_cells[rows[quantization, strategy]].append(strategy)
        for cells, strategies in by_cells.items():
            alike[tuple(strategies), cells].append(quantization)
    return [(quantizations, list(strategies), cells) for (strategies, cells), quantizations in alike.items()]


def _families(title: str, formats: Sequence[str], claimed: set[tuple[str, ...]]) -> str:
    lines = [f"## {title}\n", _cells("family", *formats), "|---|" + ":-:|" * len(formats)]
    for family in c.families():
        verdicts = {name: c.family_verdict(family, name) for name in formats}
        for name, refused in verdicts.items():
            _agree((family, name), {name} if (family, name) in claimed else set(), refused)
        lines.append(_cells(family, *(_cell((family, n) in claimed, v) for n, v in verdicts.items())))
    return "\n".join([*lines, ""])


def _reasons() -> str:
    """Why a family is not exported so, each reason once."""
    found: dict[str, list[str]] = defaultdict(list)
    for family, name in product(c.families(), (*c.formats(), *c.quantized_formats())):
        refused = c.family_verdict(family, name)
        if refused is not None:
            found[refused.reason.rpartition(": ")[2]].append(f"{family} {name}")
    lines = [f"- {reason}: {', '.join(of)}." for reason, of in found.items()]
    return "\n".join(["## Why not\n", *lines, ""])


def _tests(claims: dict[str, list[tuple[str, ...]]]) -> str:
    lines = [f"- `{test}`: {'; '.join(' '.join(claim) for claim in of)}" for test, of in claims.items()]
    return "\n".join(
        ["## What tests run\n", "Adapter, quantization, strategy, export; or family, export.\n", *lines, ""]
    )


def _link(rule: str) -> str:
    return f"`{rule}`" if rule == c.BY_THE_SPEC else f"[{rule}](rules.md#{rule})"


def _cells(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    text = document()
    if "--check" in sys.argv[1:]:
        return int(not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != text)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
