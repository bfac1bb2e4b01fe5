"""A model folder seen as a finished run, so that the exporters write it and their consumers read it."""

from __future__ import annotations

from pathlib import Path

from axoc_runtime.errors import EXIT_INPUTS, RuntimeFailure
from axoc_runtime.exports.source import PROVENANCE, Source
from axoc_runtime.quantize.settings import Settings
from axoc_runtime.quantize.texts import keep_windows

FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.jinja", "tokenizer*", "LICENSE*")
"""Of a hub's repository: the weights without pickles, and what is needed to read them."""


def model_folder(model: str) -> Path:
    """Of a folder itself, or of a hub's model, fetched or already here. Raises RuntimeFailure where it cannot be profiled."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        folder = _fetched(model)
    if not (folder / "config.json").is_file():
        raise RuntimeFailure(f"{folder} has no config.json", EXIT_INPUTS, "name a model's folder or a hub id")
    if not any(folder.glob("*.safetensors")):
        fix = "save it as safetensors: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OTHER)"
        raise RuntimeFailure(f"{folder} has no weights in safetensors", EXIT_INPUTS, fix)
    return folder.resolve()


def _fetched(model: str) -> Path:
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(model, allow_patterns=list(FILES)))
    except Exception as error:  # of the hub, of the network, or of a name that is none
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RuntimeFailure(f"{model} is no folder, and the hub gives none: {first}", EXIT_INPUTS) from None


def make_view(settings: Settings) -> str:
    """Links the model and writes the texts; whose text it is. Raises RuntimeFailure for a model that is quantized already."""
    view = settings.view
    (view / PROVENANCE).mkdir(parents=True, exist_ok=True)
    link = view / "final"
    link.unlink(missing_ok=True)
    link.symlink_to(settings.model, target_is_directory=True)
    source = source_of(settings)
    if getattr(source.config, "quantization_config", None) is not None:
        fix = "name the model that it was quantized from"
        raise RuntimeFailure(f"the weights of {settings.model_id} are quantized already", EXIT_INPUTS, fix)
    longest = int(getattr(source.config, "max_position_embeddings", None) or settings.window_tokens)
    if longest < settings.window_tokens:
        message = f"--window-tokens {settings.window_tokens} is more than the model's {longest} positions"
        raise RuntimeFailure(message, EXIT_INPUTS, f"--window-tokens {longest}")
    sizes = (
        settings.windows,
        settings.window_tokens,
        settings.calibration_rows,
        min(settings.calibration_tokens, longest),
    )
    data = None if settings.data is None else Path(settings.data)
    return keep_windows(view / PROVENANCE, source.tokenizer, data, sizes)


def source_of(settings: Settings) -> Source:
    return Source(run=settings.view, work=settings.view)
