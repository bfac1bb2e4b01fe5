"""Stepwise supervision: a problem, the steps of a solution, and whether each is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axoc_runtime.ingest.base import BadRow, Schema, Steps
from axoc_runtime.ingest.turns import to_answer, turns


class Stepwise(Schema):
    name = "stepwise"
    makes = Steps
    columns = ("prompt", "completions", "labels")

    def convert(self, row: Mapping[str, Any]) -> Steps:
        steps, labels = row["completions"], row["labels"]
        if not isinstance(steps, list) or not steps or not all(isinstance(s, str) and s.strip() for s in steps):
            raise BadRow("is no list of steps, each a text", "completions", check="type")
        if not isinstance(labels, list) or not all(isinstance(x, bool) for x in labels):
            raise BadRow("is no list of true and false", "labels", check="type")
        if len(labels) != len(steps):
            raise BadRow(f"has {len(labels)} entries, and completions {len(steps)} steps", "labels")
        prompt = to_answer(turns(row["prompt"], "prompt", role="user"), "prompt")
        return Steps(prompt=prompt, steps=tuple(steps), right=tuple(labels))
