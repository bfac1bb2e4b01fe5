"""Progress of work that is counted as it goes: a live line on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def summed(counts: Iterable[int], title: str) -> int:
    """Their sum; on a terminal, how far it is and how fast it grows, as it grows."""
    if not sys.stderr.isatty():
        return sum(counts)
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(show_speed=True))
    told = TextColumn("{task.completed:,.0f} rows")
    total = 0
    with Progress(*columns, told, TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)
        for count in counts:
            total += count
            bar.advance(task, count)
    return total


def counted(items: Iterable[T], title: str) -> Iterator[T]:
    """The items, with how many have passed and how fast shown on a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TaskProgressColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TaskProgressColumn(show_speed=True))
    with Progress(*columns, TextColumn("{task.completed:,.0f} rows"), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)
        for item in items:
            yield item
            bar.advance(task)
