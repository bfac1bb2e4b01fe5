"""The decoder as one ONNX graph: tokens and cached keys and values in, logits and the longer cache out."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from axoc_runtime.exports.base import CannotExport
from axoc_runtime.exports.quiet import silent
from axoc_runtime.exports.source import Source
from axoc_runtime.failure.explain import first_line

FILE: Final = "model.onnx"
OPSET: Final = 18
EXAMPLE_BATCH: Final = 2
"""Sequences, new tokens and cached tokens of the example that is traced: all different from 0 and 1, which torch would
take as constants."""
EXAMPLE_TOKENS: Final = 3
EXAMPLE_CACHED: Final = 5


@dataclass(frozen=True, kw_only=True)
class Graph:
    folder: Path
    maker: str
    """Which of the two made it."""
    runs_in_genai: bool

    @property
    def file(self) -> Path:
        return self.folder / FILE


def decoder(source: Source, precision: str = "fp32", *, plain: bool = False) -> Graph:
    """Made once for all formats that start from it. ``plain``: standard ONNX operators only, by torch.onnx."""
    key = f"onnx {precision} {plain}"
    if key not in source.shared:
        folder = source.work / key.replace(" ", "-")
        source.shared[key] = _plain(source, folder) if plain else _built(source, folder, precision)
    graph: Graph = source.shared[key]
    return graph


def _built(source: Source, folder: Path, precision: str) -> Graph:
    """By the builder; by torch.onnx where that knows no such architecture."""
    from onnxruntime_genai.models.builder import create_model, parse_extra_options

    options = ["hf_remote=false", "hf_token=false"]  # nothing of the hub, and no code from it
    arguments = (None, str(source.model), str(folder), precision, "cpu", str(source.work / "cache"))
    try:
        with silent():
            create_model(*arguments, **parse_extra_options(*arguments, options))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # an architecture that it does not know, or a configuration newer than it reads
        if precision != "fp32":
            message = f"onnxruntime-genai's builder cannot quantize {source.architecture}: {first_line(error)}"
            raise CannotExport(message, "ask for onnx without a quantization") from error
        shutil.rmtree(folder, ignore_errors=True)
        return decoder(source, plain=True)
    return Graph(folder=folder, maker="onnxruntime-genai's model builder", runs_in_genai=True)


def _plain(source: Source, folder: Path) -> Graph:
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    names = input_names(source.config)
    outputs = ["logits", *(n.replace("past_key_values", "present") for n in names[3:])]
    with silent():
        made = torch.onnx.export(
            program(source), dynamo=True, opset_version=OPSET, input_names=names, output_names=outputs, verbose=False
        )
        assert made is not None
        made.save(str(folder / FILE), external_data=True)
    source.tokenizer.save_pretrained(folder)
    return Graph(folder=folder, maker="torch.onnx", runs_in_genai=False)


def program(source: Source) -> Any:
    """The decoder as torch.export's program, in fp32; made once."""
    import torch

    from axoc_runtime.exports.reference import load

    if "program" not in source.shared:
        model = load(source, source.model, dtype=torch.float32, attn_implementation="sdpa").cpu()
        inputs, shapes = _example(source.config)
        with silent(), torch.no_grad():
            source.shared["program"] = torch.export.export(cached(model), inputs, dynamic_shapes=shapes)
    return source.shared["program"]


def cached(model: Any) -> Any:
    """The model with its cache as plain tensors: (ids, mask, positions, [(keys, values)]) -> (logits, [(keys, values)])."""
    import torch
    from transformers.cache_utils import DynamicCache, DynamicLayer

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any, past: Any) -> Any:
            cache = DynamicCache()
            for keys, values in past:
                layer = DynamicLayer()
                layer.lazy_initialization(keys, values)
                layer.keys, layer.values = keys, values
                cache.layers.append(layer)
            out = self.model(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=True,
            )
            return out.logits, [(layer.keys, layer.values) for layer in out.past_key_values.layers]

    return Step().eval()


def cache_shape(config: Any) -> tuple[int, int, int]:
    """(layers, key heads, head size)."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(config.num_hidden_layers), _key_heads(config), int(size)


def _key_heads(config: Any) -> int:
    """That are cached. Falcon caches its one head, or, where heads are grouped, a copy of each for every query head."""
    if getattr(config, "model_type", None) == "falcon":
        return 1 if config.multi_query and not config.new_decoder_architecture else int(config.num_attention_heads)
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def windowed(config: Any) -> bool:
    """Whether attention has a sliding window: the builder's operator for it wants a cache that is as large from the start, as
    only onnxruntime-genai gives it."""
    return bool(getattr(config, "sliding_window", None))


def input_names(config: Any) -> list[str]:
    layers = range(cache_shape(config)[0])
    past = [f"past_key_values.{i}.{x}" for i in layers for x in ("key", "value")]
    return ["input_ids", "attention_mask", "position_ids", *past]


def _example(config: Any) -> tuple[Any, Any]:
    """(inputs, which of their sizes vary)."""
    import torch

    layers, heads, size = cache_shape(config)
    batch, tokens, past = EXAMPLE_BATCH, EXAMPLE_TOKENS, EXAMPLE_CACHED
    cache = [(torch.zeros(batch, heads, past, size), torch.zeros(batch, heads, past, size)) for _ in range(layers)]
    positions = torch.arange(past, past + tokens)[None].expand(batch, tokens).contiguous()
    ids, mask = torch.ones(batch, tokens, dtype=torch.long), torch.ones(batch, past + tokens, dtype=torch.long)
    varies = torch.export.Dim.AUTO
    two, four = {0: varies, 1: varies}, {0: varies, 2: varies}
    return (ids, mask, positions, cache), (two, two, two, [(four, four)] * layers)
