"""GRPO: the model answers prompts several times, and learns from which answers were rewarded above their group's mean."""

from __future__ import annotations

import math
from typing import Any

from axoc_runtime.ingest.base import BadRow, Conversation, Example, Prompt
from axoc_runtime.ingest.encode import render, with_system
from axoc_runtime.ingest.spelled import spelled
from axoc_runtime.job import DatasetJob, Job
from axoc_runtime.objectives.base import Figure, Objective, Row


class Grpo(Objective):
    name = "grpo"
    accepts = (Prompt, Conversation)
    wants = "prompts, or conversations whose last answer the rewards compare with"
    columns = {"prompt": "text", "answer": "text"}  # noqa: RUF012
    figures = (
        Figure(name="reward", log="eval_reward", title="reward"),
        Figure(name="completion_length", log="eval_completions/mean_length", title="completion length"),
    )
    best = ("eval_reward", True)

    def rows(self, job: Job, dataset: DatasetJob, tokenizer: Any, example: Example) -> list[Row]:
        """The prompt as text, up to where the assistant begins; one that leaves no room for a completion is left out."""
        assert job.training.grpo is not None
        asked, answer = prompt_of(example)
        whole = spelled(tokenizer, with_system(asked, dataset.system_prompt))
        text = render(tokenizer, whole, len(whole.messages), prompt=True)
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        room = job.training.grpo.max_completion_length
        fits = len(ids) + room <= dataset.max_seq_length
        return [
            Row(
                columns={"prompt": text, "answer": answer},
                length=len(ids) + room,
                tokens=len(ids) + room,
                trained_tokens=room if fits else 0,
                highest_id=max(ids, default=0),
            )
        ]

    def arguments(self, job: Job) -> tuple[type, dict[str, Any]]:
        from trl import GRPOConfig

        from axoc_runtime.objectives.rewards import functions
        from axoc_runtime.objectives.trl_trainer import common_arguments

        wanted = job.training.grpo
        assert wanted is not None
        functions(job)  # one that is missing stops the run before the model is loaded
        at_once = job.training.micro_batch_size * job.distributed.world_size
        return GRPOConfig, common_arguments(job) | {
            "num_generations": wanted.generations,
            "num_generations_eval": math.gcd(at_once, wanted.generations),
            "max_completion_length": wanted.max_completion_length,
            "temperature": wanted.temperature,
            "beta": wanted.beta,
            "reward_weights": [reward.weight for reward in wanted.rewards],
        }

    def trainer(self, job: Job, **parts: Any) -> Any:
        from axoc_runtime.objectives.grpo_trainer import SamplingTrainer
        from axoc_runtime.objectives.rewards import functions
        from axoc_runtime.objectives.trl_trainer import with_padding

        with_padding(parts["processing_class"])
        return SamplingTrainer(job, reward_funcs=functions(job), **parts)


def prompt_of(example: Example) -> tuple[Conversation, str]:
    """What is asked, and what the rewards compare with: of a conversation its last answer."""
    if isinstance(example, Prompt):
        return example.prompt, example.answer
    assert isinstance(example, Conversation)
    *before, last = example.messages
    if last["role"] != "assistant" or not before:
        raise BadRow("does not end with an answer to a prompt")
    return Conversation(messages=tuple(before), tools=example.tools), str(last["content"])
