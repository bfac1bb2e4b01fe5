"""The finished run that is exported: its model folder, tokenizer, and the text it is measured on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.exports.texts import Text, Texts, read_texts, within

LOGIT_BYTES: Final = 256 << 20
"""Of the trained model's logits, which are kept while the formats are compared with them: long vocabularies are measured
on fewer tokens."""
PROVENANCE: Final = "provenance"
"""What the run was made from, in its output folder."""


@dataclass(frozen=True, kw_only=True)
class Source:
    run: Path
    """The run's output folder."""
    work: Path
    """Scratch, deleted at the end; formats share intermediate files here."""
    shared: dict[str, Any] = field(default_factory=dict, compare=False)
    """What formats made and others may use, by a name."""

    @property
    def model(self) -> Path:
        return self.run / "final"

    @cached_property
    def config(self) -> Any:
        """transformers' configuration of the text model."""
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.model).get_text_config()

    @cached_property
    def architecture(self) -> str:
        raw = json.loads((self.model / "config.json").read_text(encoding="utf-8"))
        return str((raw.get("architectures") or ["unknown"])[0])

    @property
    def causal(self) -> bool:
        """False for a reward model, which has no vocabulary to predict."""
        return not self.architecture.endswith("ForSequenceClassification")

    @cached_property
    def sees(self) -> bool:
        """Trained on rows with images: its processor is beside it."""
        return (self.model / "processor_config.json").is_file()

    @property
    def kind(self) -> str:
        """transformers' class that loads it."""
        if self.sees:
            return "AutoModelForImageTextToText"
        return "AutoModelForCausalLM" if self.causal else "AutoModelForSequenceClassification"

    def save_reader(self, folder: Path) -> None:
        """What reads the model's input: the tokenizer, or a processor with it."""
        if not self.sees:
            self.tokenizer.save_pretrained(folder)
            return
        from transformers import AutoProcessor

        AutoProcessor.from_pretrained(self.model).save_pretrained(folder)

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.model)

    @cached_property
    def weight_bytes(self) -> int:
        return sum(f.stat().st_size for f in self.model.glob("*.safetensors"))

    @cached_property
    def dtype(self) -> str:
        """Of the stored weights, in transformers' words."""
        return str(self.config.dtype or "float32").removeprefix("torch.")

    @cached_property
    def parameters(self) -> int:
        return self.weight_bytes // (4 if self.dtype == "float32" else 2)

    @cached_property
    def _texts(self) -> Texts:
        return read_texts(self.run / PROVENANCE, self.tokenizer)

    @cached_property
    def texts(self) -> tuple[Text, ...]:
        """What is measured on."""
        return within(self._texts.measured, LOGIT_BYTES // (4 * int(self.config.vocab_size)))

    @property
    def measured_on(self) -> str:
        return self._texts.measured_on

    @property
    def calibration(self) -> tuple[tuple[int, ...], ...]:
        """Token ids of training rows, for quantizers; none where the run kept none."""
        return self._texts.calibration


def require_finished(run: Path) -> None:
    """Raises RuntimeFailure where ``run`` is no finished run."""
    if not (run / "final" / "config.json").is_file():
        found = "an adapter that is not merged yet" if (run / "adapter").is_dir() else "no final/config.json"
        fix = "name the output folder of a finished run; launch.sh of its bundle finishes one"
        raise RuntimeFailure(f"{run}: {found}", EXIT_INPUTS, fix)


def vocabulary_refusal(source: Source) -> str | None:
    """Where text may become tokens that the embedding has no rows for. Special ones without a row are let be: Gemma 3's own
    tokenizer has one for images, which its text models never see."""
    rows, added = int(source.config.vocab_size), source.tokenizer.added_tokens_decoder
    ordinary = [i for i in source.tokenizer.get_vocab().values() if i not in added or not added[i].special]
    highest = max([*ordinary, *(i for text in source.texts for i in text.ids)])
    if highest < rows:
        return None
    return f"the tokenizer in {source.model} gives the token {highest:,}, and the model's embedding has {rows:,} rows"
