"""How figures become rows, a recommendation, a table and a picture: no model is loaded."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from axoc.spec.load import load_spec
from axoc_runtime.exports.texts import Text
from axoc_runtime.quantize import compare, evaluate
from axoc_runtime.quantize.attention import attention_of
from axoc_runtime.quantize.methods import SHORT, UNQUANTIZED, Method
from axoc_runtime.quantize.plot import plot
from axoc_runtime.quantize.recommend import Advice, advise, spec_text
from axoc_runtime.quantize.rows import Row, rows_of

WINDOWS, TOKENS = 32, 255


def read(shift: float, noise: float = 0.0, seed: int = 0) -> dict[str, Any]:
    """Windows of different difficulty, the same for all models; ``shift`` nats a token more than the first model."""
    hard = np.random.default_rng(1).normal(3.0, 0.8, WINDOWS)
    own = np.random.default_rng(seed).normal(shift, noise, WINDOWS) if noise else np.full(WINDOWS, shift)
    speed = {"median": 100.0, "slowest": 90.0, "fastest": 120.0}
    nats = [float(n) for n in (hard + own) * TOKENS]
    return {"nats": nats, "counts": [TOKENS] * WINDOWS, "top": [1, 2, 3, 4], "speed": speed}


def measured(size: int, peak: int, found: dict[str, Any], note: str | None = None) -> dict[str, Any]:
    return {
        "size_bytes": size, "peak_bytes": peak, "loading_peak_bytes": peak, "on_gpu": False, "runner": "transformers 5",
        "write_speed": None, "read": found, "note": note,
    }  # fmt: skip


def method(name: str) -> Method:
    format_, _, variant = SHORT.get(name, name).partition(":")
    return Method(name=name, format=format_, variant=variant)


def rows(*more: tuple[str, dict[str, Any]]) -> list[Row]:
    base = (UNQUANTIZED, {"measured": measured(1000, 1000, read(0.0))})
    return rows_of([base, *((method(n), {"made": {"notes": []}, **record}) for n, record in more)])


def test_the_same_model_differs_by_nothing_and_surely_so() -> None:
    found = compare.change(read(0.0), read(0.0))
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert compare.same_top(read(0.0), read(0.0)) == 1.0


def test_windows_are_paired_so_that_their_difficulty_is_no_doubt() -> None:
    found = compare.change(read(math.log(1.1)), read(0.0))
    assert found.value == pytest.approx(0.1) and found.low == pytest.approx(0.1) and found.high == pytest.approx(0.1)


def test_the_interval_is_that_of_the_mean_and_holds_the_truth() -> None:
    noise = 0.05
    inside = 0
    for seed in range(40):
        found = compare.change(read(0.02, noise, seed), read(0.0))
        width = math.log1p(found.high) - math.log1p(found.low)
        assert width == pytest.approx(2 * 1.96 * noise / math.sqrt(WINDOWS), rel=0.5)
        inside += found.low <= math.expm1(0.02) <= found.high
    assert inside >= 33  # of 38 expected


def test_the_smallest_that_surely_loses_little_is_taken_and_not_one_that_may_lose_more() -> None:
    found = rows(
        ("gguf", {"measured": measured(300, 900, read(0.04, 0.08, 3))}),  # 4%, but not surely below 5%
        ("gptq", {"measured": measured(400, 900, read(0.02))}),
        ("awq", {"measured": measured(410, 900, read(0.01))}),  # as large as gptq, and better
        ("int8", {"measured": measured(600, 900, read(0.0))}),
        ("nf4", {"measured": measured(400, 500, read(0.3))}),
        ("fp8", {"error": "no", "fix": None}),
    )
    advice = advise(found, 0.05)
    assert advice.serve is not None and advice.serve.method.name == "awq"
    assert advice.train is None and "none of 1 measured" in advice.train_why
    generous = advise(found, 0.5)
    assert generous.serve is not None and generous.serve.method.name == "gguf"
    assert generous.train is not None and generous.train.method.trained_as == "nf4"


def test_what_no_adapter_can_be_trained_beside_on_a_cpu_is_not_recommended_for_it() -> None:
    here = measured(400, 500, read(0.01))
    here_only = advise(rows(("llm_int8", {"measured": here})), 0.5)
    assert here_only.train is None and here_only.train_why == "no method for it was measured"
    on_a_gpu = advise(rows(("llm_int8", {"measured": here | {"on_gpu": True}})), 0.5).train
    assert on_a_gpu is not None and on_a_gpu.method.trained_as == "int8"


def test_methods_that_cannot_be_told_apart_are_named() -> None:
    found = rows(
        ("gptq", {"measured": measured(400, 900, read(0.01, 0.05, 5))}),
        ("int8", {"measured": measured(900, 900, read(0.012, 0.05, 6))}),
        ("gguf", {"measured": measured(900, 900, read(0.4))}),
    )
    why = advise(found, 0.9).serve_why
    assert "not to be told apart by perplexity: int8" in why and "gguf" not in why


def test_a_smaller_perplexity_is_drawn_to_the_left_of_nothing() -> None:
    made = rows(
        ("gptq", {"measured": measured(400, 900, read(-0.1))}), ("int8", {"measured": measured(400, 900, read(0.1))})
    )
    tree = ElementTree.fromstring(plot(made, "m"))
    bars = [e.attrib for e in tree.iter() if e.tag.endswith("rect") and e.get("fill") == "#4878a8"][-2:]
    left, right = ((float(b["x"]), float(b["x"]) + float(b["width"])) for b in bars)
    assert left[0] < left[1] == right[0] < right[1]


def test_the_time_of_a_read_is_that_of_computing_where_a_consumer_tells_it() -> None:
    class Slow:
        name, computing_seconds = "m", 0.5

        def logits(self, ids: Any) -> Any:
            return np.zeros((len(ids), 4), dtype=np.float32)

    windows = [Text(ids=(1, 2, 3, 0), counted=(True,) * 4)] * 4
    assert evaluate.read(Slow(), windows, 4, lambda _: None).speed.median == 8.0


class Sleepy:
    """A consumer that takes as long as it is told, by a clock that only it moves."""

    name = "m"

    def __init__(self, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds, self.now = seconds, 0.0
        monkeypatch.setattr(evaluate.time, "perf_counter", lambda: self.now)

    def logits(self, ids: Any) -> Any:
        self.now += self.seconds
        return np.zeros((len(ids), 4), dtype=np.float32)

    def generate(self, ids: Any, count: int) -> list[int]:
        self.now += self.seconds * count
        return [0] * count


WINDOWS_OF_FOUR = [Text(ids=(1, 2, 3, 0), counted=(True,) * 4)] * WINDOWS


@pytest.mark.parametrize(
    ("seconds", "given", "windows"),
    [(1.0, None, WINDOWS), (1.0, 40.0, WINDOWS), (1.0, 20.0, 20), (30.0, 20.0, evaluate.LEAST_WINDOWS)],
)
def test_a_slow_method_reads_as_many_windows_as_there_is_time_for(
    monkeypatch: pytest.MonkeyPatch, seconds: float, given: float | None, windows: int
) -> None:
    found = evaluate.read(Sleepy(seconds, monkeypatch), WINDOWS_OF_FOUR, 4, lambda _: None, given)
    assert len(found.nats) == windows and found.speed.median == 4 / seconds


@pytest.mark.parametrize(
    ("seconds", "given", "took"), [(1.0, None, 98), (0.1, 15.0, 9.8), (1.0, 30.0, 32), (9.0, 1.0, 162)]
)
def test_a_slow_method_writes_as_many_tokens_as_there_is_time_for(
    monkeypatch: pytest.MonkeyPatch, seconds: float, given: float | None, took: float
) -> None:
    consumer = Sleepy(seconds, monkeypatch)
    found = evaluate.write_speed(consumer, (1, 2), 32, 3, given)
    assert found is not None and found.median == pytest.approx(1 / seconds)
    assert consumer.now == pytest.approx(took)


def test_a_method_that_read_fewer_windows_is_held_against_the_same_ones_and_is_less_sure() -> None:
    whole, base = read(0.02, 0.05, 3), read(0.0)
    few = {name: value[:8] if name in ("nats", "counts") else value for name, value in whole.items()} | {"top": [1, 9]}
    first = compare.change(few, {**base, "nats": base["nats"][:8], "counts": base["counts"][:8]})
    assert compare.change(few, base) == first
    assert first.high - first.low > 1.3 * (compare.change(whole, base).high - compare.change(whole, base).low)
    assert compare.same_top(few, base) == 0.5


@pytest.mark.parametrize("name", [*SHORT, "none"])
def test_what_is_recommended_can_be_pasted_into_a_spec(name: str) -> None:
    row = rows((name, {"measured": measured(400, 500, read(0.01))}))[1] if name != "none" else None
    train = row if row is not None and row.method.trained_as else None
    advice = Advice(serve=row, train=train, serve_why="a: b # c", train_why="d\ne")
    text = spec_text('models/it\'s "mine": #1', advice) + "dataset: {path: data.jsonl}\n"
    request = load_spec(text.encode(), "spec.yaml")
    assert request.model.id == 'models/it\'s "mine": #1'
    assert request.export.formats == ("vllm" if row is None else row.method.written,)
    wanted = request.model.quantization
    assert (None if wanted is None else wanted.method) == (train.method.trained_as if train else None)  # type: ignore[union-attr]


def test_the_picture_is_svg_with_a_bar_and_an_interval_for_each_method() -> None:
    made = rows(
        ("gptq", {"measured": measured(400, 900, read(0.02, 0.1, 7))}), ("fp8", {"error": "<broken>", "fix": None})
    )
    tree = ElementTree.fromstring(plot(made, "A & B"))
    texts = [e.text for e in tree.iter() if e.tag.endswith("text")]
    assert {"A & B", "none", "gptq", "fp8"} <= set(texts)
    bars = [e for e in tree.iter() if e.tag.endswith("rect") and e.get("fill") == "#4878a8"]
    assert len(bars) == 2 * 4  # two methods were measured, by four figures: nothing was written
    assert len([e for e in tree.iter() if e.tag.endswith("path")]) == 3  # two speeds, one perplexity


@pytest.mark.parametrize(
    ("heads", "kind", "cache"),
    [
        ({"num_key_value_heads": 32}, "MHA", 2 * 2 * 4 * 32 * 64),
        ({"num_key_value_heads": 8}, "GQA", 2 * 2 * 4 * 8 * 64),
        ({"num_key_value_heads": 1}, "MQA", 2 * 2 * 4 * 64),
        ({"multi_query": True, "num_kv_heads": 32}, "MQA", 2 * 2 * 4 * 64),
        ({"kv_lora_rank": 512, "qk_rope_head_dim": 64}, "MLA", 2 * 4 * 576),
    ],
)
def test_the_kind_of_attention_and_its_cache_come_from_the_configuration(
    heads: dict[str, Any], kind: str, cache: int
) -> None:
    config = SimpleNamespace(num_attention_heads=32, num_hidden_layers=4, hidden_size=2048, **heads)
    found = attention_of(config)
    assert (found.kind, found.cache_bytes_per_token) == (kind, cache)
