"""Rows about images: which tokens are learned, what is cut, what is refused, and what a batch is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from axoc_runtime.ingest.base import BadRow, Conversation, Pictured
from axoc_runtime.ingest.encode import IGNORED, Rules
from axoc_runtime.ingest.pictured import encode_pictured, parts, without
from seeing import MODELS, damaged, png

from runtime.jobs import make_job
from runtime.picture_faults import enormous

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=MODELS)
def processor(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    MODELS[request.param](folder / "model")
    from axoc_runtime.models.processor import load_processor
    from axoc_runtime.models.tokenizer import load_tokenizer

    job = make_job(folder, model__vision=True)
    return load_processor(job, load_tokenizer(job))


def said(*turns: tuple[str, str], images: tuple[Any, ...] = (png("red"),)) -> Pictured:
    messages = tuple({"role": role, "content": content} for role, content in turns)
    return Pictured(conversation=Conversation(messages=messages), images=images)


ONE = (("user", "<image>What is it?"), ("assistant", "A red square."))
TWO = (*ONE, ("user", "And <image> this?"), ("assistant", "Blue."))


def encoded(processor: Any, example: Pictured, **rules: Any) -> Any:
    return encode_pictured(processor, example, Path(), Path(), Rules(**{"limit": 128} | rules))


def learned(processor: Any, encoded: Any) -> str:
    """What the labels say."""
    ids = [label for label in encoded.labels if label != IGNORED]
    assert all(label in (IGNORED, token) for token, label in zip(encoded.input_ids, encoded.labels, strict=True))
    assert not set(ids) & set(processor.image_token_ids)
    return str(processor.tokenizer.decode(ids))


def test_only_the_answers_text_is_learned(processor: Any) -> None:
    assert learned(processor, encoded(processor, said(*ONE)).encoded) == "A red square.<|end|>"
    images = (png("red"), png("blue", 40, 9))
    two = encoded(processor, said(*TWO, images=images)).encoded
    assert learned(processor, two) == "A red square.<|end|>Blue.<|end|>"
    last = encoded(processor, said(*TWO, images=images), train_on="last_turn").encoded
    assert learned(processor, last) == "Blue.<|end|>"


def test_all_that_is_said_is_learned_but_images(processor: Any) -> None:
    everything = learned(processor, encoded(processor, said(*ONE), train_on="all").encoded)
    assert everything == "<|user|>What is it?<|end|>\n<|assistant|>A red square.<|end|>\n"


def test_lengths_count_the_images_tokens(processor: Any) -> None:
    row = encoded(processor, said(*ONE)).encoded
    placed = [i for i in row.input_ids if i in processor.image_token_ids]
    assert len(placed) >= 4 and not row.cut
    two = encoded(processor, said(("user", "<image><image>What is it?"), ONE[1], images=(png("red"),) * 2)).encoded
    assert len(two.input_ids) > len(row.input_ids) + len(placed) - 1


def test_an_image_is_never_cut(processor: Any) -> None:
    whole = encoded(processor, said(*ONE)).encoded
    end = max(i for i, token in enumerate(whole.input_ids) if token in processor.image_token_ids) + 1
    shorter = encoded(processor, said(*ONE), limit=len(whole.input_ids) - 3).encoded
    assert shorter.cut and shorter.input_ids == whole.input_ids[:-3]
    for how, limit in (("right", end - 1), ("left", 10), ("split", 10), ("drop", len(whole.input_ids) - 1)):
        with pytest.raises(BadRow, match="max_seq_length") as caught:
            encoded(processor, said(*ONE), limit=limit, truncation=how)
        assert caught.value.check == "too-long"


def test_images_without_a_place_come_before_the_first_question(processor: Any) -> None:
    beside = said(("user", "What is it?"), ONE[1])
    assert encoded(processor, beside).encoded == encoded(processor, said(*ONE)).encoded


@pytest.mark.parametrize(
    ("example", "says"),
    [
        (said(*ONE, images=(damaged(png("red")),)), "no image that can be read"),
        (said(*ONE, images=("gone.png",)), "is not there"),
        (said(*ONE, images=(enormous(30_000),)), "more pixels than are unpacked: 178,956,970"),
        (said(*ONE, images=("https://a.b/c.png",)), "nothing is fetched"),
        (said(*TWO), "2 times"),
        (said(("user", "What?"), ("assistant", "<image>")), "in an answer"),
    ],
)
def test_what_cannot_be_seen_is_refused(processor: Any, example: Pictured, says: str) -> None:
    with pytest.raises(BadRow, match=says) as caught:
        encoded(processor, example)
    assert caught.value.check == "image"


def test_an_image_token_in_the_text_is_no_image(processor: Any) -> None:
    if processor.image_token == "<image>":
        pytest.skip("which is the mark of images, too")
    with pytest.raises(BadRow, match="tokens for them"):
        encoded(processor, said(("user", f"<image>{processor.image_token}?"), ONE[1]))


def test_a_batch_has_the_tokens_as_prepared_and_pixels_of_each_image(processor: Any, tmp_path: Path) -> None:
    from axoc_runtime.objectives.pictures import ImageChanged, PictureCollator

    (tmp_path / "a.png").write_bytes(png("blue", 30, 30))
    examples = [said(*TWO, images=(png("red"), png("blue"))), said(*ONE, images=("a.png",))]
    made = [encode_pictured(processor, e, tmp_path, tmp_path, Rules(limit=128)) for e in examples]
    prepared = [
        {"input_ids": m.encoded.input_ids, "labels": m.encoded.labels, "text": m.text, "images": m.images} for m in made
    ]
    collate = PictureCollator(processor, tmp_path)
    batch = collate(prepared)
    assert batch["pixel_values"].shape[0] == 3
    assert not batch["pixel_values"][1].equal(batch["pixel_values"][0])
    for name in ("labels", "attention_mask", *(n for n in batch if n.endswith("type_ids"))):
        assert batch[name].shape == batch["input_ids"].shape
    assert batch["input_ids"][1][: len(prepared[1]["input_ids"])].tolist() == prepared[1]["input_ids"]
    (tmp_path / "a.png").unlink()
    with pytest.raises(ImageChanged, match=r"a\.png is not there any more"):
        collate(prepared)
    with pytest.raises(ImageChanged, match="another size"):
        collate([prepared[0] | {"input_ids": [0] * 5, "labels": [0] * 5}])


def test_what_a_loaders_process_hands_on_is_told_without_its_trace() -> None:
    from axoc_runtime.objectives.pictures import ImageChanged

    traced = "Caught ImageChanged in DataLoader worker process 0.\nOriginal Traceback…\naxoc.ImageChanged: it is gone\n"
    assert str(ImageChanged(traced)) == "it is gone" and ImageChanged("gone").exit_code == 13


def test_parts_and_holes() -> None:
    assert parts("a<image>b") == [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    assert without([(0, 10), (12, 14)], [(2, 4), (9, 12)]) == [(0, 2), (4, 9), (12, 14)]
