"""Conversations about images to tokens. The model's processor places each image's tokens; nothing is learned of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from axoc_runtime.ingest.base import BadRow, Conversation, Message, Pictured
from axoc_runtime.ingest.encode import (
    ASSISTANT,
    Encoded,
    Rules,
    answer_spans,
    labelled,
    learned_turns,
    render,
    with_system,
)
from axoc_runtime.ingest.pixels import NoImage, kept, pixels
from axoc_runtime.ingest.schemas.vision import MARK
from axoc_runtime.ingest.spelled import spelled
from axoc_runtime.ingest.tokens import Span, tokenized


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A row about images, and what its pixels are made from when it is trained on."""

    encoded: Encoded
    """Its tokens with those of its images, of which none is cut off."""
    text: str
    """As the chat template writes it: each image is one token there."""
    images: list[dict[str, Any]]
    """Each ``{path, bytes}``, one of which is None."""


class Speaker:
    """A processor's chat template for messages whose text marks its images."""

    def __init__(self, processor: Any) -> None:
        self.processor, self.chat_template = processor, processor.chat_template

    def apply_chat_template(self, messages: Sequence[Message], **more: Any) -> Any:
        spoken = [{**m, "content": parts(m["content"])} for m in messages]
        return self.processor.apply_chat_template(spoken, **more)


def parts(content: str) -> list[dict[str, str]]:
    """Of a turn, as templates of models that see take it."""
    found: list[dict[str, str]] = []
    for index, text in enumerate(content.split(MARK)):
        found += [{"type": "image"}] if index else []
        found += [{"type": "text", "text": text}] if text else []
    return found


def encode_pictured(processor: Any, example: Pictured, folder: Path, base: Path, rules: Rules) -> Seen:
    """``folder``: where the row's paths count from; ``base``: where those that are kept do. Raises BadRow."""
    conversation = marked(example)
    opened = [_opened(image, folder, index) for index, image in enumerate(example.images)]
    speaker = Speaker(processor)
    spoken = spelled(speaker, with_system(conversation, rules.system_prompt))
    text = render(speaker, spoken, len(spoken.messages))
    learned, untrained = [(0, len(text))], 0
    if rules.train_on != "all":
        learned, untrained = answer_spans(speaker, spoken, text, learned_turns(spoken, rules.train_on))
    ids, labels, images = _tokens(processor, text, opened, learned)
    long = len(ids) > rules.limit
    if long:
        ids, labels = _cut(ids, labels, images, rules)
    encoded = Encoded(input_ids=ids, labels=labels, cut=long, untrained_turns=untrained)
    return Seen(encoded=encoded, text=text, images=[kept(image, folder, base) for image in example.images])


def marked(example: Pictured) -> Conversation:
    """With a mark for each image: before the first question where the row says nothing of their places. Raises BadRow."""
    messages = example.conversation.messages
    if any(m["role"] == ASSISTANT and MARK in m["content"] for m in messages):
        raise BadRow("has an image in an answer, which no model here draws", "messages", check="image")
    marks = sum(m["content"].count(MARK) for m in messages)
    if marks == len(example.images):
        return example.conversation
    if marks:
        message = f"says {MARK} {marks} times, and the row has {len(example.images)} images"
        raise BadRow(message, "messages", check="image", fix=f"write {MARK} once for each image")
    first = next(i for i, m in enumerate(messages) if m["role"] == "user")
    asked = {**messages[first], "content": MARK * len(example.images) + messages[first]["content"]}
    return Conversation(messages=(*messages[:first], asked, *messages[first + 1 :]), tools=example.conversation.tools)


def _opened(image: Any, folder: Path, index: int) -> Any:
    try:
        return pixels(image, folder)
    except NoImage as error:
        raise BadRow(str(error), f"images[{index}]", check="image", fix="repair or remove the row") from None


def _tokens(
    processor: Any, text: str, images: list[Any], learned: list[Span]
) -> tuple[list[int], list[int], list[Span]]:
    """(ids, labels, ranges of the images' tokens). Raises BadRow."""
    if text.count(processor.image_token) != len(images):
        message = f"has {len(images)} images, and the text {text.count(processor.image_token)} tokens for them"
        fix = f"take {processor.image_token} out of the row's text; else the model's chat template leaves images out"
        raise BadRow(message, "messages", check="image", fix=fix)
    try:
        made = processor(text=[text], images=[images], add_special_tokens=False, return_text_replacement_offsets=True)
    except (
        ValueError,
        TypeError,
        IndexError,
    ) as error:  # each processor has conditions of its own, e.g. on proportions
        message = f"is refused by the model's processor: {str(error)[:120]}"
        raise BadRow(message, "images", check="image", fix="repair or remove the row") from None
    placed = made["text_replacement_offsets"][0]
    expanded = _expanded(text, placed)
    spans = [tuple(p["new_span"]) for p in placed]
    learned = without([(_moved(a, placed), _moved(b, placed)) for a, b in learned], spans)
    (ids, ranges), (_, seen) = tokenized(processor.tokenizer, [expanded, expanded], [learned, spans])
    if ids != list(made["input_ids"][0]):
        raise BadRow("is tokenized otherwise by the model's processor than by its tokenizer", check="template")
    return ids, labelled(ids, ranges), seen


def _expanded(text: str, placed: Sequence[Any]) -> str:
    """The text with all of each image's tokens."""
    edges = [(0, 0), *(p["span"] for p in placed), (len(text), len(text))]
    between = [text[before[1] : after[0]] for before, after in pairwise(edges)]
    return "".join(one for pair in zip(between, [*(p["replacement"] for p in placed), ""], strict=True) for one in pair)


def _moved(place: int, placed: Sequence[Any]) -> int:
    """A place of the text in the expanded one."""
    return place + sum(len(p["replacement"]) - len(p["text"]) for p in placed if p["span"][1] <= place)


def without(spans: Sequence[Span], holes: Sequence[Span]) -> list[Span]:
    """What is left of the spans; both are in order."""
    found: list[Span] = []
    for start, end in spans:
        inside = [h for h in holes if h[0] < end and h[1] > start]
        begins = [start, *(h[1] for h in inside)]
        ends = [*(h[0] for h in inside), end]
        found += [(a, b) for a, b in zip(begins, ends, strict=True) if a < b]
    return found


def _cut(ids: list[int], labels: list[int], images: list[Span], rules: Rules) -> tuple[list[int], list[int]]:
    """On the right, and never into an image. Raises BadRow."""
    last = max((end for _, end in images), default=0)
    if rules.truncation == "right" and last <= rules.limit:
        return ids[: rules.limit], labels[: rules.limit]
    why = f"has {len(ids):,} tokens, and dataset.max_seq_length is {rules.limit:,}"
    if rules.truncation == "right":
        why += f": a cut would go through its images, which end at {last:,}"
    elif rules.truncation != "drop":
        why += f": truncation {rules.truncation} would cut its images off"
    raise BadRow(why, check="too-long", fix="raise max_seq_length, or leave such rows out by dataset.on_bad_row: drop")
