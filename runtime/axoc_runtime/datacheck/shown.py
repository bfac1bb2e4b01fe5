"""Findings on a console: a table of kinds, the first places of each, and the accounts. rich leaves colour out where
NO_COLOR is set or the output is no terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from axoc_runtime.ingest.checks.finding import ERROR, LEFT_OUT, WARNING, Finding
from axoc_runtime.ingest.checks.ledger import LEVELS, Ledger

COLORS: Final = {ERROR: "red", LEFT_OUT: "yellow", WARNING: "cyan"}
PLACES: Final = 3


def show(accounts: Sequence[Any], ledger: Ledger, notes: Sequence[str]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    for level in LEVELS:
        kinds = [(kind, n) for kind, n in ledger.counts.most_common() if kind[0] == level]
        for kind, count in kinds:
            console.print(f"[bold {COLORS[level]}]{level}[/] [bold]{escape(kind[1])}[/]: {count:,}")
            for finding in ledger.shown[kind][:PLACES]:
                console.print(f"  {escape(_line(finding))}")
            if count > PLACES:
                console.print(f"  [dim]and {count - PLACES:,} more[/]")
            console.print(f"  [green]fix:[/] {escape(ledger.shown[kind][0].fix)}")
    for note in notes:
        console.print(f"[yellow]note:[/] {escape(note)}")
    for account in accounts:
        console.print(escape(_accounted(account)))
    console.print(_verdict(ledger))
    console.print(f"Report: {escape(str(ledger.report))}", soft_wrap=True)


def _line(finding: Finding) -> str:
    at = "" if finding.offset is None else f" (byte {finding.offset:,})"
    sample = f"  | {finding.sample}" if finding.sample else ""
    column = f"{finding.column} " if finding.column else ""
    return f"{finding.place}{at}: {column}{finding.message}{sample}"


def _accounted(account: Any) -> str:
    longest = f", longest {account.longest:,} tokens" if account.longest else ""
    longest += f", {account.cut:,} rows longer than max_seq_length" if account.cut else ""
    broken = f", {account.files_broken:,} files cannot be read" if account.files_broken else ""
    made = f" as {account.made:,}" if account.made > account.used else ""
    told = f"{account.rows:,} rows read = {account.used:,} used{made} + {account.listed:,} listed above"
    return f"{account.path}: {told}{broken}{longest}"


def _verdict(ledger: Ledger) -> str:
    errors, warnings = ledger.total(ERROR), ledger.total(WARNING)
    color = "red" if errors else "green"
    told = f"{errors:,} errors, {ledger.total(LEFT_OUT):,} left out as the spec asks, {warnings:,} warnings"
    return f"[bold {color}]{told}[/]"
