"""Rows about images to a batch: their tokens as they were prepared, and pixels made now."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from axoc_runtime.errors import EXIT_DATA, RuntimeFailure
from axoc_runtime.ingest.pixels import NoImage, pixels
from axoc_runtime.objectives.planned import padding_token
from axoc_runtime.objectives.sft import Collator

PREPARED: Final = ("input_ids", "attention_mask")
"""Of what a processor makes: these are there already."""
FIX: Final = "put the images back as they were, or launch again with --fresh to prepare them anew"


class ImageChanged(RuntimeFailure):
    """One argument, as a loader's process hands it on: with a stack trace before what it says."""

    def __init__(self, message: str, *_: Any) -> None:
        super().__init__(message.strip().rpartition(f"{type(self).__name__}: ")[2], EXIT_DATA, FIX, everywhere=False)


class PictureCollator:
    """``input_ids``, ``labels`` and ``attention_mask`` as Collator makes them, and what the model's processor makes of the
    images: ``pixel_values``, and kinds of tokens where the model asks for them."""

    def __init__(self, processor: Any, base: Path) -> None:
        """``base``: where kept paths count from."""
        self.processor, self.base = processor, base
        self.padded = Collator(padding_token(processor.tokenizer))

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self.padded(rows)
        made = self.processor(
            text=[row["text"] for row in rows],
            images=[[self._opened(image) for image in row["images"]] for row in rows],
            add_special_tokens=False,
            images_kwargs={"return_tensors": "pt"},
        )
        for row, ids in zip(rows, made["input_ids"], strict=True):
            if not np.array_equal(ids[: len(row["input_ids"])], row["input_ids"]):
                raise ImageChanged("an image has another size than when the rows were prepared")
        for name, value in made.items():
            if name not in PREPARED:
                batch[name] = value if isinstance(value, torch.Tensor) else _padded(value, batch["input_ids"])
        return batch

    def _opened(self, image: dict[str, Any]) -> Any:
        try:
            return pixels(image, self.base)
        except NoImage as error:
            raise ImageChanged(f"the image {image['path'] or 'of a row'} {error} any more") from None


def _padded(values: list[list[int]], like: torch.Tensor) -> torch.Tensor:
    """Numbers of each token, cut as the rows were; 0 for padding."""
    found = torch.zeros_like(like)
    for row, numbers in enumerate(values):
        kept = numbers[: like.shape[1]]
        found[row, : len(kept)] = torch.tensor(kept)
    return found
