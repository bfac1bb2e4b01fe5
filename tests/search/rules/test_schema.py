"""Pitfalls that a spec cannot express: the schema refuses the key or the word, and names what there is."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from axoc.spec.load import load_spec
from spec.specimens import refusal


@dataclass(frozen=True, kw_only=True)
class Case:
    pitfall: int
    bad: str
    says: str
    good: str


def training(text: str) -> str:
    return f"training: {{{text}}}\n"


CASES = (
    Case(
        pitfall=1,
        bad=training("optimizer: paged_adamw_8bit"),
        says="optimizer",
        good=training("optimizer: adamw_bnb_8bit"),
    ),
    Case(
        pitfall=2,
        bad=training("optimizer: adamw_torch_8bit"),
        says="optimizer",
        good=training("optimizer: adamw_torch"),
    ),
    Case(pitfall=26, bad=training("optimizer: galore_adamw"), says="optimizer", good=training("optimizer: adafactor")),
    Case(
        pitfall=6,
        bad="adapter: lora\nmodel: {id: a/b, quantization: hqq}\n",
        says="quantization",
        good="adapter: lora\nmodel: {id: a/b, quantization: nf4}\n",
    ),
    Case(
        pitfall=6,
        bad="adapter: lora\nmodel: {id: a/b, quantization: eetq}\n",
        says="quantization",
        good="adapter: lora\nmodel: {id: a/b, quantization: int8}\n",
    ),
    Case(
        pitfall=13,
        bad="dataset: {path: d, images: true}\n",
        says="images",
        good="dataset: {path: d}\n",
    ),
    Case(
        pitfall=14,
        bad="model: {id: a/b, resize_vocabulary: true}\n",
        says="resize_vocabulary",
        good="model: {id: a/b}\n",
    ),
    Case(
        pitfall=22,
        bad="distributed: {type: fsdp, use_orig_params: true}\n",
        says="use_orig_params",
        good="distributed: {type: fsdp}\n",
    ),
    Case(
        pitfall=25,
        bad="distributed: {context_parallel_size: 2}\n",
        says="context_parallel_size",
        good="distributed: {model_parallel_size: 2}\n",
    ),
    Case(
        pitfall=27,
        bad="model: {id: a/b, kernels: liger, cross_entropy: cut}\n",
        says="cross_entropy",
        good="model: {id: a/b, kernels: liger}\n",
    ),
    Case(
        pitfall=27,
        bad="model: {id: a/b, kernels: [liger, cut_cross_entropy]}\n",
        says="kernels",
        good="model: {id: a/b, kernels: none}\n",
    ),
    Case(
        pitfall=30,
        bad="dataset: {path: d, padding_free: true}\n",
        says="padding_free",
        good="dataset: {path: d, packing: false}\n",
    ),
    Case(pitfall=37, bad=training("save_only_model: true"), says="save_only_model", good=training("save_steps: 5")),
    Case(
        pitfall=38,
        bad=training("early_stopping_patience: 2, eval_steps: 20, save_steps: 50"),
        says="save_steps",
        good=training("early_stopping_patience: 2, eval_steps: 20, save_steps: 40"),
    ),
    Case(
        pitfall=46,
        bad="dataset: {path: 's3://b/d', streaming: true, validation_split: 0}\n",
        says="streaming",
        good="dataset: {path: 's3://b/d', streaming: true, validation_split: 0}\ntraining: {max_steps: 10}\n",
    ),
    Case(
        pitfall=46,
        bad="dataset: {path: 's3://b/d', streaming: true}\ntraining: {max_steps: 10}\n",
        says="validation_split",
        good="dataset: {path: 's3://b/d', streaming: true, validation_split: 0}\ntraining: {max_steps: 10}\n",
    ),
    Case(
        pitfall=50,
        bad="adapter: lora\nmodel: {id: a/b, quantisation: nf4}\n",
        says="quantisation",
        good="adapter: lora\nmodel: {id: a/b, quantization: nf4}\n",
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.pitfall}-{case.says}")
def test_a_bad_spec_is_refused_with_a_remedy_and_a_good_one_is_read(case: Case) -> None:
    (problem,) = refusal(with_model(case.bad))
    assert case.says in problem.message and problem.line is not None
    assert problem.fix or problem.expected
    load_spec(with_model(case.good).encode(), "spec.yaml")


def with_model(text: str) -> str:
    return text if f"\n{text}".count("\nmodel:") else f"model: a/b\n{text}"
