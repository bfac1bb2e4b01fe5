"""PyTorch's own file: a state dict for `torch.load(..., weights_only=True)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from axoc_runtime.exports.base import Consumer, Exporter
from axoc_runtime.exports.reference import Transformers, load
from axoc_runtime.exports.source import Source

FILE: Final = "pytorch_model.bin"


class PytorchStateDict(Exporter):
    name = "pytorch"
    causal_only = False

    def write(self, source: Source, folder: Path, variant: str) -> tuple[str, ...]:
        import torch

        model = load(source, source.model, dtype="auto").cpu()
        torch.save(model.state_dict(), folder / FILE)
        model.config.save_pretrained(folder)
        source.tokenizer.save_pretrained(folder)
        return ("A pickle: load it with weights_only=True, or take safetensors.",)

    def consumer(self, source: Source, folder: Path, variant: str) -> Consumer:
        """A fresh model from the configuration alone, so that no weight can come from elsewhere."""
        import torch

        model = _fresh(source, folder)
        state = torch.load(folder / FILE, map_location="cpu", weights_only=True, mmap=True)
        model.load_state_dict(state, strict=True)
        return Transformers(source, folder, note=f", torch.load {torch.__version__}", model=model.float().eval())

    def usage(self, source: Source, variant: str) -> str:
        return f'state = torch.load("{FILE}", weights_only=True)\nmodel.load_state_dict(state)'


def _fresh(source: Source, folder: Path) -> Any:
    import transformers

    kind = transformers.AutoModelForCausalLM if source.causal else transformers.AutoModelForSequenceClassification
    return kind.from_config(transformers.AutoConfig.from_pretrained(folder), attn_implementation="eager")
