"""Examples to tokens. The labels are what the assistant says, up to the end of its turn, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Conversation, Document, Message
from axoc_runtime.ingest.tokens import Span, Tokenized, tokenized

IGNORED: Final = -100


@dataclass(frozen=True, kw_only=True)
class Encoded:
    input_ids: list[int]
    labels: list[int]
    """As input_ids where it is trained on, else IGNORED."""
    cut: bool = False
    """True where the row was longer than the limit."""
    untrained_turns: int = 0
    """Turns of the assistant that this chat template rewrites once more follow: they cannot be trained on in place."""


@dataclass(frozen=True, kw_only=True)
class _Spoken:
    """A conversation as its template writes it."""

    text: str
    answers: list[Span]
    untrained_turns: int


def encode(
    tokenizer: Any, example: Conversation | Document, *, limit: int, system_prompt: str | None = None
) -> list[Encoded]:
    """One row, or for a document as many as its length needs. ``limit`` in tokens. Raises BadRow."""
    (found,) = encode_all(tokenizer, [example], limit=limit, system_prompt=system_prompt)
    if isinstance(found, BadRow):
        raise found
    return found


def encode_all(
    tokenizer: Any, examples: Sequence[Conversation | Document], *, limit: int, system_prompt: str | None = None
) -> list[list[Encoded] | BadRow]:
    """The same of many examples, tokenized together; BadRow in the place of one that cannot be used."""
    written = [_written(tokenizer, example, system_prompt) for example in examples]
    spoken = [w for w in written if isinstance(w, _Spoken)]
    ids = iter(tokenized(tokenizer, [s.text for s in spoken], [s.answers for s in spoken]))
    texts = [w for w in written if isinstance(w, str)]
    plain = iter(tokenizer(texts)["input_ids"] if texts else [])
    found: list[list[Encoded] | BadRow] = []
    for one in written:
        if isinstance(one, BadRow):
            found.append(one)
        elif isinstance(one, str):
            found.append(_document(tokenizer, list(next(plain)), limit))
        else:
            found.append([_conversation(one, next(ids), limit)])
    return found


def _written(tokenizer: Any, example: Conversation | Document, system_prompt: str | None) -> _Spoken | str | BadRow:
    if isinstance(example, Document):
        return example.text
    spoken = with_system(example, system_prompt)
    try:
        text = render(tokenizer, spoken, len(spoken.messages))
        answers, untrained = answer_spans(tokenizer, spoken, text)
    except BadRow as error:
        return error
    return _Spoken(text=text, answers=answers, untrained_turns=untrained)


def with_system(example: Conversation, system_prompt: str | None) -> Conversation:
    """The spec's system prompt, for rows that bring none."""
    if not system_prompt or example.messages[0]["role"] == "system":
        return example
    first: Message = {"role": "system", "content": system_prompt}
    return Conversation(messages=(first, *example.messages), tools=example.tools)


def _document(tokenizer: Any, ids: list[int], limit: int) -> list[Encoded]:
    """Windows of at most ``limit`` tokens, the last one ended by the end-of-text token."""
    if tokenizer.eos_token_id is not None and ids[-1:] != [tokenizer.eos_token_id]:
        ids.append(tokenizer.eos_token_id)
    windows = [ids[i : i + limit] for i in range(0, len(ids), limit)]
    return [Encoded(input_ids=w, labels=list(w)) for w in windows if len(w) > 1]


def _conversation(spoken: _Spoken, made: Tokenized, limit: int) -> Encoded:
    ids, answers = made
    return Encoded(
        input_ids=ids[:limit],
        labels=labelled(ids, answers)[:limit],
        cut=len(ids) > limit,
        untrained_turns=spoken.untrained_turns,
    )


def labelled(ids: list[int], learned: Sequence[Span]) -> list[int]:
    """The ids inside the ranges, IGNORED elsewhere."""
    labels = [IGNORED] * len(ids)
    for start, end in learned:
        labels[start:end] = ids[start:end]
    return labels


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
        whole = text if index + 1 == len(example.messages) else render(tokenizer, example, index + 1)
        through = ended(whole, message["content"])
        start = shared(render(tokenizer, example, index, prompt=True), through)
        if text.startswith(through) and start < len(through):
            spans.append((start, len(through)))
        else:
            rewritten += 1
    return spans, rewritten


def shared(prompt: str, through: str) -> int:
    """Characters that both begin with."""
    if through.startswith(prompt):  # nearly always, and many times faster than to look for it
        return len(prompt)
    return len(commonprefix([prompt, through]))  # noqa: RUF071


def ended(through: str, content: str) -> str:
    """Without the line break that follows an end-of-turn token: it is no part of the answer."""
    said = content.strip()
    ending = through[through.rfind(said) + len(said) :] if said else through
    return through.removesuffix("\n") if ending.strip() else through


def tokens(tokenizer: Any, text: str, spans: list[Span]) -> tuple[list[int], list[bool]]:
    """Token ids, and which of them begin inside a span. The template has written all special tokens itself."""
    ((ids, ranges),) = tokenized(tokenizer, [text], [spans])
    inside = [False] * len(ids)
    for start, stop in ranges:
        inside[start:stop] = [True] * (stop - start)
    return ids, inside
