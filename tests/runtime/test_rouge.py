"""ROUGE on held-out rows: what is asked, what is compared, and that answers made together are those made alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from axoc_runtime import generate, rouge
from axoc_runtime.generate import answers, spread

from runtime.jobs import make_job

NO = rouge.IGNORED


@pytest.mark.parametrize(
    ("labels", "start", "end"),
    [
        ([NO, NO, 2, 3], 2, 4),
        ([NO, 1, NO, NO, 4, 5, NO], 4, 6),  # the last of two answers; the template ends with a line break
        ([0, 1, 2, 3, 4], 2, 5),  # a document
    ],
)
def test_what_is_asked_and_what_is_answered(labels: list[int], start: int, end: int) -> None:
    ids = list(range(len(labels)))
    assert rouge.question_and_answer(ids, labels) == (ids[:start], ids[start:end])


def test_scores_by_hand() -> None:
    found = rouge.scores(["rouge1", "rouge2", "rougeL"], ["The cat sat.", "a b c d"], ["the cat ran", "d a b"])
    # first pair: 2 of 3 words, 1 of 2 pairs; second: P = 1, R = 3/4 in words; (a b) of 2 and 3 pairs; longest "a b"
    assert found["rouge1"] == pytest.approx((2 / 3 + 6 / 7) / 2)
    assert found["rouge2"] == pytest.approx((1 / 2 + 2 / 5) / 2)
    assert found["rougeL"] == pytest.approx((2 / 3 + 4 / 7) / 2)


@pytest.mark.parametrize("text", ["Hello, World! it's 3.5_x", "a-b (c)"])
def test_on_ascii_it_is_rouge_scores_own_tokenizer(text: str) -> None:
    from rouge_score.tokenizers import DefaultTokenizer

    assert rouge._Words().tokenize(text) == DefaultTokenizer(use_stemmer=False).tokenize(text)


def test_other_scripts_count() -> None:
    assert rouge.scores(["rougeL"], ["привет мир"], ["Привет"])["rougeL"] == pytest.approx(2 / 3)
    assert rouge.scores(["rougeL"], ["猫は寝る"], ["猫が寝る"])["rougeL"] == pytest.approx(3 / 4)


def test_the_same_sample_each_time() -> None:
    rows = list(range(1000))
    assert rouge.sampled(rows, 7) == rouge.sampled(rows, 7) != rouge.sampled(rows, 8)
    assert len(set(rouge.sampled(rows, 7))) == 64
    assert rouge.sampled([1, 2], 7) == [1, 2]


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, initializer_range=0.5,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


TOKENIZER = SimpleNamespace(pad_token_id=0, eos_token_id=None)
PROMPTS = [[5, 6], [7, 8, 9, 10, 11, 12], [13], [5, 9, 14, 2]]


def test_answers_made_together_are_those_made_alone(model: Any) -> None:
    together = answers(model, TOKENIZER, PROMPTS, max_new_tokens=8, at_once=1000, ends=frozenset())
    alone = [answers(model, TOKENIZER, [p], max_new_tokens=8, at_once=1, ends=frozenset())[0] for p in PROMPTS]
    assert together == alone
    assert len({tuple(a) for a in alone}) == len(PROMPTS), "a model that always says the same would prove nothing"


def test_an_answer_ends_at_its_end(model: Any) -> None:
    whole = answers(model, TOKENIZER, PROMPTS[:1], max_new_tokens=8, at_once=1000, ends=frozenset())[0]
    stop = whole[3]
    cut = answers(model, TOKENIZER, PROMPTS, max_new_tokens=8, at_once=1000, ends=frozenset([stop]))
    assert cut[0] == whole[: whole.index(stop)]
    assert all(stop not in a for a in cut)


@pytest.mark.parametrize(("at_once", "batches"), [(1000, [4]), (28, [2, 2]), (1, [1, 1, 1, 1])])
def test_no_more_tokens_at_once_than_allowed(
    model: Any, monkeypatch: pytest.MonkeyPatch, at_once: int, batches: list[int]
) -> None:
    seen: list[int] = []
    real = model.generate
    monkeypatch.setattr(model, "generate", lambda **k: (seen.append(len(k["input_ids"])), real(**k))[1])
    answers(model, TOKENIZER, PROMPTS, max_new_tokens=8, at_once=at_once, ends=frozenset())
    assert seen == batches


def test_a_perfect_model_scores_one_and_a_mute_one_nothing(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, eval_metrics=["perplexity", "rougeL"], samples__max_new_tokens=4)
    ids = tokenizer("<s>user\nwhich?</s>\n<s>assistant\n", add_special_tokens=False)["input_ids"]
    said = tokenizer("one two three</s>", add_special_tokens=False)["input_ids"]
    rows = [{"input_ids": ids + said, "labels": [NO] * len(ids) + said}]
    asked: dict[str, Any] = {}

    def answer(model: Any, tokenizer: Any, prompts: Any, **options: Any) -> list[list[int]]:
        asked.update(options, prompts=prompts)
        return [said[:4]]

    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=None))
    monkeypatch.setattr(rouge, "answers", answer)
    assert rouge.measure(job, model, tokenizer, rows) == {"rougeL": 1.0}, "held against as many tokens as were allowed"
    assert asked["prompts"] == [ids] and asked["ends"] == {tokenizer.eos_token_id} and asked["max_new_tokens"] == 4
    monkeypatch.setattr(rouge, "answers", lambda *a, **k: [[]])
    assert rouge.measure(job, model, tokenizer, rows) == {"rougeL": 0.0}


def test_a_model_larger_than_the_device_is_spread(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU here: what would go where is looked at, by the map that accelerate makes."""
    import accelerate

    maps: list[dict[str, Any]] = []
    moved: list[Any] = []
    size = model.get_memory_footprint()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (size + 100, 1 << 30))
    monkeypatch.setattr(model, "to", lambda device: moved.append(device) or model)
    monkeypatch.setattr(accelerate, "dispatch_model", lambda model, device_map: maps.append(device_map))
    spread(model, torch.device("cuda"), 100)
    assert moved == [torch.device("cuda")] and maps == []
    spread(model, torch.device("cuda"), 101)
    assert len(moved) == 1 and set(maps[0].values()) == {0, "cpu"}
    assert "model.layers.0.mlp" not in maps[0] and "model.layers.1.mlp" not in maps[0], "a block stays whole"


def test_room_for_keys_and_values(tmp_path: Path, model: Any) -> None:
    job = make_job(tmp_path, training__micro_batch_size=3)  # 64 tokens a row, float32
    assert generate.tokens_at_once(job) == 192
    assert generate.cache_bytes(job, model.config) == 2 * (2 * 2 * 2 * 8 * 4 * 192), "K and V, layers, heads, width"
