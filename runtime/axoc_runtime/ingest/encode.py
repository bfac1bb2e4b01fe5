"""Examples to tokens. The labels are what the assistant says, up to the end of its turn, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from os.path import commonprefix
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Conversation, Document, Message

IGNORED: Final = -100
Span = tuple[int, int]
"""Characters from, to (exclusive)."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    input_ids: list[int]
    labels: list[int]
    """As input_ids where it is trained on, else IGNORED."""
    cut: bool = False
    """True where the row was longer than the limit."""
    untrained_turns: int = 0
    """Turns of the assistant that this chat template rewrites once more follow: they cannot be trained on in place."""


def encode(
    tokenizer: Any, example: Conversation | Document, *, limit: int, system_prompt: str | None = None
) -> list[Encoded]:
    """One row, or for a document as many as its length needs. ``limit`` in tokens. Raises BadRow."""
    if isinstance(example, Document):
        return _document(tokenizer, example.text, limit)
    return [_conversation(tokenizer, with_system(example, system_prompt), limit)]


def with_system(example: Conversation, system_prompt: str | None) -> Conversation:
    """The spec's system prompt, for rows that bring none."""
    if not system_prompt or example.messages[0]["role"] == "system":
        return example
    first: Message = {"role": "system", "content": system_prompt}
    return Conversation(messages=(first, *example.messages), tools=example.tools)


def _document(tokenizer: Any, text: str, limit: int) -> list[Encoded]:
    """Windows of at most ``limit`` tokens, the last one ended by the end-of-text token."""
    ids = list(tokenizer(text)["input_ids"])
    if tokenizer.eos_token_id is not None and ids[-1:] != [tokenizer.eos_token_id]:
        ids.append(tokenizer.eos_token_id)
    windows = [ids[i : i + limit] for i in range(0, len(ids), limit)]
    return [Encoded(input_ids=w, labels=list(w)) for w in windows if len(w) > 1]


def _conversation(tokenizer: Any, example: Conversation, limit: int) -> Encoded:
    text = render(tokenizer, example, len(example.messages))
    spans, untrained = answer_spans(tokenizer, example, text)
    ids, trained = tokens(tokenizer, text, spans)
    labels = [token if on else IGNORED for token, on in zip(ids, trained, strict=True)]
    return Encoded(input_ids=ids[:limit], labels=labels[:limit], cut=len(ids) > limit, untrained_turns=untrained)


def render(tokenizer: Any, example: Conversation, count: int, *, prompt: bool = False) -> str:
    """The first ``count`` messages as the model's own chat template writes them. Raises BadRow."""
    try:
        return str(
            tokenizer.apply_chat_template(
                list(example.messages[:count]),
                tools=[dict(t) for t in example.tools] or None,
                tokenize=False,
                add_generation_prompt=prompt,
            )
        )
    except Exception as error:  # templates are programs: they raise what they like
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadRow(f"the model's chat template refuses it: {first}") from None


def answer_spans(tokenizer: Any, example: Conversation, text: str) -> tuple[list[Span], int]:
    """Where in ``text`` the assistant speaks, and how many of its turns are not there as they were said.

    A turn begins where the template would let the model begin, and ends with the template's end of turn.
    """
    spans, rewritten = [], 0
    for index, message in enumerate(example.messages):
        if message["role"] != "assistant":
            continue
        through = ended(render(tokenizer, example, index + 1), message["content"])
        start = len(commonprefix([render(tokenizer, example, index, prompt=True), through]))  # noqa: RUF071
        if text.startswith(through) and start < len(through):
            spans.append((start, len(through)))
        else:
            rewritten += 1
    return spans, rewritten


def ended(through: str, content: str) -> str:
    """Without the line break that follows an end-of-turn token: it is no part of the answer."""
    said = content.strip()
    ending = through[through.rfind(said) + len(said) :] if said else through
    return through.removesuffix("\n") if ending.strip() else through


def tokens(tokenizer: Any, text: str, spans: list[Span]) -> tuple[list[int], list[bool]]:
    """Token ids, and which of them begin inside a span. The template has written all special tokens itself."""
    if not getattr(tokenizer, "is_fast", False):
        return _tokens_by_segment(tokenizer, text, spans)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    trained, following = [], 0
    for start, end in encoded["offset_mapping"]:
        while following < len(spans) and start >= spans[following][1]:
            following += 1
        trained.append(following < len(spans) and start >= spans[following][0] and end > start)
    return list(encoded["input_ids"]), trained


def _tokens_by_segment(tokenizer: Any, text: str, spans: list[Span]) -> tuple[list[int], list[bool]]:
    """For tokenizers that do not tell offsets: each stretch of text on its own."""
    ids: list[int] = []
    trained: list[bool] = []
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    for index, (start, end) in enumerate(pairwise(edges)):
        piece = list(tokenizer(text[start:end], add_special_tokens=False)["input_ids"]) if end > start else []
        ids += piece
        trained += [index % 2 == 1] * len(piece)
    return ids, trained
