"""Who speaks when: what a conversation has that chat templates or the spec do not take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from axoc_runtime.ingest.base import Conversation, Example, Message, Preference, Prompt, Rated, Record
from axoc_runtime.ingest.checks.finding import LEFT_OUT, WARNING, Finding, of_row
from axoc_runtime.job import DatasetJob

TURNS: Final = ("messages", "conversations", "prompt")


def conversation_of(example: Example) -> Conversation | None:
    if isinstance(example, Conversation):
        return example
    return example.prompt if isinstance(example, Preference | Rated | Prompt) else None


def speech_findings(record: Record, example: Example, dataset: DatasetJob) -> Iterator[Finding]:
    spoken = conversation_of(example)
    if spoken is None:
        return
    if not dataset.support_tool_calls and uses_tools(spoken.messages):
        fix, message = "set dataset.support_tool_calls: true", "calls tools, and support_tool_calls is false"
        yield of_row(LEFT_OUT, "tool-calls-off", record, message, column=column_of(record), fix=fix)
    for index, (before, after) in enumerate(pairwise(spoken.messages), start=1):
        if before["role"] == after["role"] and before["role"] in ("user", "assistant"):
            message = f"has two turns of the {before['role']} in a row (turns {index} and {index + 1})"
            fix = "join them: many chat templates refuse this, and others were never trained on it"
            said = str(after["content"])
            yield of_row(WARNING, "role-order", record, message, column=column_of(record), sample=said, fix=fix)
            return


def column_of(record: Record) -> str | None:
    """That holds the turns; None where they are put together from several."""
    return next((name for name in TURNS if isinstance(record.row.get(name), list)), None)


def uses_tools(messages: Sequence[Message]) -> bool:
    return any(m["role"] == "tool" or m.get("tool_calls") for m in messages)
