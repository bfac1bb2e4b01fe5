"""onnxruntime and onnxruntime-genai as consumers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from axoc_runtime.exports.base import CannotExport, Logits
from axoc_runtime.exports.onnx.graph import cache_shape

NUMPY_TYPES: Final = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
CACHE_TOLERANCE: Final = 2e-3
"""Largest relative difference of a step's logits with and without the cache: the order of additions."""
CACHE_TOLERANCE_QUANTIZED: Final = 0.1
"""Kernels for one token and for many round activations to 8 bits in blocks of their own."""


class Session:
    """onnxruntime with a decoder graph, on the CPU."""

    def __init__(self, file: Path, config: Any) -> None:
        import onnxruntime

        _, self.heads, self.size = cache_shape(config)
        self.name = f"onnxruntime {onnxruntime.__version__}"
        try:
            self.session: Any = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        except Exception as error:  # its own classes, which differ between versions
            raise CannotExport(f"onnxruntime cannot load {file.name}: {str(error).splitlines()[0]}") from None

    def logits(self, ids: Sequence[int]) -> Logits:
        return self.step(ids, None)[0]

    def step(self, ids: Sequence[int], cache: dict[str, Any] | None) -> tuple[Logits, dict[str, Any]]:
        """Logits of ``ids``, which follow what is cached, and the cache after them."""
        inputs = {i.name: i for i in self.session.get_inputs()}
        past = cache or {n: self._empty(i) for n, i in inputs.items() if n.startswith("past_key_values.")}
        before = next((v.shape[2] for v in past.values()), 0)
        feed = {
            "input_ids": np.array([list(ids)], dtype=np.int64),
            "attention_mask": np.ones((1, before + len(ids)), dtype=np.int64),
            "position_ids": np.arange(before, before + len(ids), dtype=np.int64)[None],
        } | past
        names = [o.name for o in self.session.get_outputs()]
        found = dict(zip(names, self.session.run(names, {k: v for k, v in feed.items() if k in inputs}), strict=True))
        kept = {n.replace("present", "past_key_values"): v for n, v in found.items() if n.startswith("present.")}
        return found["logits"][0].astype(np.float32), kept

    def _empty(self, described: Any) -> Any:
        """No cached tokens yet: [1, heads, 0, head size]."""
        return np.zeros((1, self.heads, 0, self.size), dtype=NUMPY_TYPES[described.type])


class GenAi:
    """onnxruntime-genai with a folder of its builder."""

    def __init__(self, folder: Path, config: Any) -> None:
        import onnxruntime_genai

        self.window = int(getattr(config, "sliding_window", None) or 0)
        self.library: Any = onnxruntime_genai
        self.name = f"onnxruntime-genai {onnxruntime_genai.__version__}"
        try:
            self.model: Any = onnxruntime_genai.Model(str(folder))
        except Exception as error:
            raise CannotExport(f"onnxruntime-genai cannot load the folder: {str(error).splitlines()[0]}") from None

    def logits(self, ids: Sequence[int]) -> Logits:
        return self._after(ids)[1]

    def next_logits(self, ids: Sequence[int]) -> Logits:
        """Of the last token alone, the others being in the cache."""
        generator, _ = self._after(ids[:-1])
        generator.append_tokens(np.array([ids[-1]], dtype=np.int32))
        found: Logits = np.asarray(generator.get_output("logits"), dtype=np.float32)[0]
        return found

    def _after(self, ids: Sequence[int]) -> tuple[Any, Logits]:
        parameters = self.library.GeneratorParams(self.model)
        least = max(len(ids), self.window) + 8  # its cache of a sliding window must hold the window
        parameters.set_search_options(max_length=least, do_sample=False)
        generator = self.library.Generator(self.model, parameters)
        generator.append_tokens(np.array(list(ids), dtype=np.int32))
        return generator, np.asarray(generator.get_output("logits"), dtype=np.float32)[0]


def check_cache(whole: Logits, step: Logits, tolerance: float = CACHE_TOLERANCE) -> None:
    """A token computed from the cache is the token computed from its whole text. Raises CannotExport."""
    apart = float(np.linalg.norm(step[-1] - whole[-1]) / np.linalg.norm(whole[-1]))
    if not apart <= tolerance:
        raise CannotExport(f"with its cache of keys and values the logits differ by {apart:.1%}")
