"""Built-in rewards: what they pay for, and what they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.ingest.base import BadRow, Conversation
from axoc_runtime.objectives import rewards
from axoc_runtime.objectives.grpo import prompt_of

from runtime.jobs import make_job


def grpo(*names: str) -> dict[str, Any]:
    return {
        "generations": 2, "max_completion_length": 10, "temperature": 1.0, "beta": 0.0, "reference": "none",
        "rewards": [{"name": name, "weight": 1.0} for name in names],
    }  # fmt: skip


PAID: list[tuple[str, str, str, float]] = [
    ("answer", "Paris", "paris", 1.0),
    ("answer", "I think so.\nAnswer: Paris.", "Paris", 1.0),
    ("answer", "#### 12", "12", 1.0),
    ("answer", "Not Paris, Rome", "Paris", 0.0),
    ("number", "so 3 and then 1,024.", "1024", 1.0),
    ("number", "1024, no: 3", "1024", 0.0),
    ("number", "none", "1024", 0.0),
    ("think_format", "<think>hm</think> Paris", "", 1.0),
    ("think_format", "Paris <think>hm</think>", "", 0.0),
    ("think_format", "<think>hm</think>", "", 0.0),
]


@pytest.mark.parametrize(("name", "completion", "answer", "paid"), PAID)
def test_what_is_paid_for(tmp_path: Path, name: str, completion: str, answer: str, paid: float) -> None:
    (function,) = rewards.functions(make_job(tmp_path, training__objective="grpo", training__grpo=grpo(name)))
    assert function(completions=[completion], completion_ids=[[1]], answer=[answer]) == [paid]


def test_brevity_falls_with_length(tmp_path: Path) -> None:
    (function,) = rewards.functions(make_job(tmp_path, training__objective="grpo", training__grpo=grpo("brevity")))
    assert function(completions=["", ""], completion_ids=[[], [1] * 10], answer=["", ""]) == [1.0, 0.0]


def test_a_reward_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    job = make_job(tmp_path, training__objective="grpo", training__grpo=grpo("answer", "beauty"))
    with pytest.raises(RuntimeFailure, match="'beauty' is not there") as caught:
        rewards.functions(job)
    assert caught.value.exit_code == 1 and "brevity" in str(caught.value.fix)


def test_a_conversation_is_a_prompt_and_its_last_answer() -> None:
    asked = {"role": "user", "content": "q"}
    said = {"role": "assistant", "content": "a"}
    assert prompt_of(Conversation(messages=(asked, said))) == (Conversation(messages=(asked,)), "a")
    with pytest.raises(BadRow):
        prompt_of(Conversation(messages=(asked, said, asked)))
