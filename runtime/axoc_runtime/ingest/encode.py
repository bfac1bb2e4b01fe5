"""Examples to tokens. The labels are what the assistant says, up to the end of its turn, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Conversation, Document, Message, Segments, Tokens
from axoc_runtime.ingest.cut import cut
from axoc_runtime.ingest.spelled import spelled
from axoc_runtime.ingest.tokens import Span, tokenized

IGNORED: Final = -100
Text = Conversation | Document | Segments | Tokens
"""What a language model reads from its first token to its last."""
ASSISTANT: Final = "assistant"


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
class Rules:
    """What a dataset asks for."""

    limit: int
    """Tokens of a row."""
    system_prompt: str | None = None
    truncation: str = "right"
    train_on: str = ASSISTANT


@dataclass(frozen=True, kw_only=True)
class _Spoken:
    """Text as it is to be tokenized: its template, or its author, has written all special tokens."""

    text: str
    answers: list[Span]
    untrained_turns: int = 0


def encode(tokenizer: Any, example: Text, *, limit: int, **more: Any) -> list[Encoded]:
    """One row, or as many as its length needs where it is split. ``more``: as in Rules. Raises BadRow."""
    (found,) = encode_all(tokenizer, [example], limit=limit, **more)
    if isinstance(found, BadRow):
        raise found
    return found


def encode_all(tokenizer: Any, examples: Sequence[Text], *, limit: int, **more: Any) -> list[list[Encoded] | BadRow]:
    """The same of many examples, tokenized together; BadRow in the place of one that cannot be used."""
    rules = Rules(limit=limit, **more)
    written = [_written(tokenizer, example, rules) for example in examples]
    spoken = [w for w in written if isinstance(w, _Spoken)]
    ids = iter(tokenized(tokenizer, [s.text for s in spoken], [s.answers for s in spoken]))
    texts = [w for w in written if isinstance(w, str)]
    plain = iter(tokenizer(texts)["input_ids"] if texts else [])
    found: list[list[Encoded] | BadRow] = []
    for one in written:
        try:
            if isinstance(one, BadRow):
                found.append(one)
            elif isinstance(one, str):
                found.append(_document(tokenizer, list(next(plain)), rules))
            elif isinstance(one, Tokens):
                found.append(_cut(tokenizer, list(one.input_ids), list(one.labels), rules))
            else:
                made, answers = next(ids)
                found.append(_cut(tokenizer, made, labelled(made, answers), rules, one.untrained_turns))
        except BadRow as error:
            found.append(error)
    return found


def _written(tokenizer: Any, example: Text, rules: Rules) -> _Spoken | str | Tokens | BadRow:
    if isinstance(example, Document):
        return example.text
    if isinstance(example, Tokens):
        return example
    if isinstance(example, Segments):
        return _segments(example)
    try:
        spoken = spelled(tokenizer, with_system(example, rules.system_prompt))
        text = render(tokenizer, spoken, len(spoken.messages))
        if rules.train_on == "all":
            return _Spoken(text=text, answers=[(0, len(text))])
        answers, untrained = answer_spans(tokenizer, spoken, text, learned_turns(spoken, rules.train_on))
    except BadRow as error:
        return error
    return _Spoken(text=text, answers=answers, untrained_turns=untrained)


def _segments(example: Segments) -> _Spoken:
    answers, at = [], 0
    for text, on in example.parts:
        if on and text:
            answers.append((at, at + len(text)))
        at += len(text)
    return _Spoken(text="".join(text for text, _ in example.parts), answers=answers)


def learned_turns(example: Conversation, train_on: str) -> frozenset[int]:
    """Turns that are trained on: the assistant's, or the last of them, but those of weight 0."""
    said = [i for i, m in enumerate(example.messages) if m["role"] == ASSISTANT]
    wanted = said[-1:] if train_on == "last_turn" else said
    return frozenset(i for i in wanted if example.messages[i].get("weight") != 0)


def with_system(example: Conversation, system_prompt: str | None) -> Conversation:
    """The spec's system prompt, for rows that bring none."""
    if not system_prompt or example.messages[0]["role"] == "system":
        return example
    first: Message = {"role": "system", "content": system_prompt}
    return Conversation(messages=(first, *example.messages), tools=example.tools)


def _document(tokenizer: Any, ids: list[int], rules: Rules) -> list[Encoded]:
    """Ended by the end-of-text token, and begun and ended by one alone where the text brings its own. A long one is split
    whatever is said of conversations, unless it is to be dropped: every piece of a text is text."""
    first, last = tokenizer.bos_token_id, tokenizer.eos_token_id
    while first is not None and ids[:2] == [first, first]:
        del ids[0]
    while last is not None and ids[-2:] == [last, last]:
        del ids[-1]
    if last is not None and ids[-1:] != [last]:
        ids.append(last)
    rows = cut(ids, list(ids), rules.limit, "drop" if rules.truncation == "drop" else "split", None)
    return [Encoded(input_ids=i, labels=labels) for i, labels in rows if len(i) > 1]


def _cut(tokenizer: Any, ids: list[int], labels: list[int], rules: Rules, untrained_turns: int = 0) -> list[Encoded]:
    too_long = len(ids) > rules.limit
    rows = cut(ids, labels, rules.limit, rules.truncation, tokenizer.bos_token_id)
    return [
        Encoded(input_ids=i, labels=on, cut=too_long, untrained_turns=0 if n else untrained_turns)
        for n, (i, on) in enumerate(rows)
    ]


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
        raise BadRow(f"the model's chat template refuses it: {first}", check="template") from None


def answer_spans(tokenizer: Any, example: Conversation, text: str, turns: frozenset[int]) -> tuple[list[Span], int]:
    """Where in ``text`` the assistant speaks, and how many of its turns are not there as they were said. ``turns``: those
    that are trained on.

    A turn begins where the template would let the model begin, and ends with the template's end of turn.
    """
    spans, rewritten = [], 0
    for index, message in enumerate(example.messages):
        if index not in turns:
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
