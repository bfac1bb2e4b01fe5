"""Tool calls for models whose chat template has no words for them: written out as text, so that nothing is lost.

The spelling with tags around JSON is the one that most open models with tools use.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from axoc_runtime.ingest.base import Conversation, Message

PROBE: Final = "axoc_probe"
OFFER: Final = (
    "Tools can be called with "
    '<tool_call>{"name": …, "arguments": {…}}</tool_call>; their results come in <tool_response>. There are:'
)
_WRITES: dict[str, bool] = {}
"""Chat template -> whether it writes calls."""


def spelled(tokenizer: Any, example: Conversation) -> Conversation:
    """The conversation itself, or, where the model's template would leave calls out, one that has them as text."""
    messages = example.messages
    if not example.tools and not any(m.get("tool_calls") or m["role"] == "tool" for m in messages):
        return example
    if writes_calls(tokenizer):
        return example
    offered = _offer(messages, example.tools) if example.tools else messages
    return Conversation(messages=tuple(as_text(offered)))


def writes_calls(tokenizer: Any) -> bool:
    """Whether the chat template has a call's name in what it writes."""
    template = getattr(tokenizer, "chat_template", None)
    template = template if isinstance(template, str) else repr(template)
    if template not in _WRITES:
        call = {"type": "function", "id": "a" * 9, "function": {"name": PROBE, "arguments": {"x": 1}}}
        said = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
        try:
            _WRITES[template] = PROBE in tokenizer.apply_chat_template(said, tokenize=False)
        except Exception:  # templates are programs: one that raises here does not know calls
            _WRITES[template] = False
    return _WRITES[template]


def _offer(messages: Sequence[Message], tools: Sequence[Any]) -> tuple[Message, ...]:
    """What may be called, at the end of the system prompt."""
    listed = "\n".join([OFFER, *(json.dumps(t["function"], ensure_ascii=False) for t in tools)])
    if messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{listed}"}
        return (first, *messages[1:])
    return ({"role": "system", "content": listed}, *messages)


def as_text(messages: Sequence[Message]) -> Iterator[Message]:
    """Results that follow one another are one turn of the user."""
    results: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            results.append(f"<tool_response>\n{message['content']}\n</tool_response>")
            continue
        if results:
            yield {"role": "user", "content": "\n".join(results)}
            results = []
        yield _with_calls(message)
    if results:
        yield {"role": "user", "content": "\n".join(results)}


def _with_calls(message: Message) -> Message:
    calls = message.get("tool_calls")
    if not calls:
        return message
    written = [json.dumps(c["function"], ensure_ascii=False) for c in calls]
    text = "\n".join([*filter(None, [message["content"]]), *(f"<tool_call>\n{w}\n</tool_call>" for w in written)])
    return {**{k: v for k, v in message.items() if k != "tool_calls"}, "content": text}
