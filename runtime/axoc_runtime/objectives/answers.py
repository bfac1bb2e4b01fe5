"""Token ids of prompts and of the answers to them."""

from __future__ import annotations

from os.path import commonprefix
from typing import Any

from axoc_runtime.ingest.base import Conversation, Message
from axoc_runtime.ingest.encode import ended, render, tokens, with_system
from axoc_runtime.ingest.spelled import spelled
from axoc_runtime.job import DatasetJob

Ids = list[int]


def prompt_ids(tokenizer: Any, prompt: Conversation, dataset: DatasetJob) -> Ids:
    """Up to where the template lets the assistant begin. Raises BadRow."""
    whole = spelled(tokenizer, with_system(prompt, dataset.system_prompt))
    text = render(tokenizer, whole, len(whole.messages), prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def answered(tokenizer: Any, prompt: Conversation, said: Message, dataset: DatasetJob) -> tuple[Ids, int]:
    """(ids of the conversation up to the end of its last turn, how many of them come before the answer). Raises BadRow."""
    asked = with_system(prompt, dataset.system_prompt)
    answered = spelled(tokenizer, Conversation(messages=(*asked.messages, said), tools=asked.tools))
    whole, said = spelled(tokenizer, asked), answered.messages[-1]
    count = len(whole.messages)
    through = ended(render(tokenizer, answered, count + 1), said["content"])
    start = len(commonprefix([render(tokenizer, whole, count, prompt=True), through]))  # noqa: RUF071
    ids, inside = tokens(tokenizer, through, [(start, len(through))])
    return ids, inside.index(True) if True in inside else len(ids)


def shared_prompt(chosen: tuple[Ids, int], rejected: tuple[Ids, int]) -> int:
    """Tokens that both begin with, and that come before either answer: tokens may span the border."""
    common = 0
    for left, right in zip(chosen[0], rejected[0], strict=False):
        if left != right:
            break
        common += 1
    return min(common, chosen[1], rejected[1])
