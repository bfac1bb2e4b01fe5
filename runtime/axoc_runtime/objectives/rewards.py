"""Reward functions of GRPO: built-ins by name, others as entry points of ``axoc_runtime.rewards`` with the same signature.

Called with keywords: ``completions`` (texts), ``completion_ids`` (their tokens), ``answer`` (the rows' column) and more;
returns a number for each completion.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any, Final

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.job import Job

GROUP: Final = "axoc_runtime.rewards"
Reward = Callable[..., Sequence[float]]
NUMBER: Final = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
THOUGHT: Final = re.compile(r"\s*<think>.+?</think>\s*\S", re.DOTALL)
FINAL: Final = re.compile(r"(?:####|answer\s*(?:is|:))\s*(.+)", re.IGNORECASE)


def functions(job: Job) -> list[Reward]:
    """Those the job names, in its order. Raises RuntimeFailure naming one that is not there, or cannot be loaded."""
    assert job.training.grpo is not None
    return [_named(job, reward.name) for reward in job.training.grpo.rewards]


def _named(job: Job, name: str) -> Reward:
    points = {p.name: p for p in entry_points(group=GROUP)}
    if name in points:
        try:
            made: Reward = points[name].load()
        except Exception as error:  # a plugin may fail in any way
            message = f"the reward {name!r} ({points[name].value}) cannot be loaded: {type(error).__name__}: {error}"
            raise RuntimeFailure(message, EXIT_INPUTS, "repair or remove the plugin") from error
        return made
    built_in: dict[str, Reward] = {"answer": answer, "number": number, "think_format": think_format}
    if name == "brevity":
        return brevity(job)
    if name not in built_in:
        known = ", ".join(sorted({*built_in, "brevity", *points}))
        raise RuntimeFailure(f"the reward {name!r} is not there", EXIT_INPUTS, f"known: {known}")
    return built_in[name]


def answer(completions: Sequence[str], answer: Sequence[str], **_: Any) -> list[float]:
    """1 where the completion, or what follows its last ``answer:`` or ``####``, is the row's answer; letter case and
    surrounding space do not count."""
    return [float(_folded(a) in _said(c)) for c, a in zip(completions, answer, strict=True)]


def _said(completion: str) -> set[str]:
    final = FINAL.findall(completion)
    return {_folded(completion), *([_folded(final[-1])] if final else [])}


def _folded(text: str) -> str:
    return " ".join(text.split()).strip(" .").casefold()


def number(completions: Sequence[str], answer: Sequence[str], **_: Any) -> list[float]:
    """1 where the completion's last number is the answer's last number."""
    pairs = [(_last_number(c), _last_number(a)) for c, a in zip(completions, answer, strict=True)]
    return [float(found is not None and found == wanted) for found, wanted in pairs]


def _last_number(text: str) -> float | None:
    found = NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def think_format(completions: Sequence[str], **_: Any) -> list[float]:
    """1 where it thinks between tags and then says something."""
    return [float(THOUGHT.match(c) is not None) for c in completions]


def brevity(job: Job) -> Reward:
    """From 1 for nothing said to 0 for the longest completion allowed."""
    assert job.training.grpo is not None
    longest = job.training.grpo.max_completion_length

    def brevity(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        return [1.0 - len(ids) / longest for ids in completion_ids]

    return brevity
