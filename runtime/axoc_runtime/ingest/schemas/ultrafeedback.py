"""UltraFeedback: an instruction and several completions with scores; the best one against the worst one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axoc_runtime.ingest.base import BadRow, Preference, Schema
from axoc_runtime.ingest.messages import text
from axoc_runtime.ingest.schemas.compared import compared

SCORES: Final = ("overall_score", "fine-grained_score", "score", "rating")


class UltraFeedback(Schema):
    """``completions`` of {response, overall_score}. Rows that are binarized already (chosen, rejected) are preference's."""

    name = "ultrafeedback"
    makes = Preference
    columns = ("instruction", "completions")
    optional = ("source", "models")

    def convert(self, row: Mapping[str, Any]) -> Preference:
        value = row["completions"]
        if not isinstance(value, list) or len(value) < 2:
            raise BadRow("is no list of two completions or more", "completions", check="type")
        rated = [self._rated(one, f"completions[{i}]") for i, one in enumerate(value)]
        best, worst = max(rated, key=lambda r: r[0]), min(rated, key=lambda r: r[0])
        if best[0] == worst[0]:
            raise BadRow("all have the same score: none is better", "completions", check="same-answers")
        return compared(text(row, "instruction"), (best[1], worst[1]), ("completions", "completions"))

    @staticmethod
    def _rated(value: Any, column: str) -> tuple[float, str]:
        if not isinstance(value, Mapping):
            raise BadRow("is no completion: expected {response, overall_score}", column, check="type")
        score = next((value[name] for name in SCORES if value.get(name) is not None), None)
        if isinstance(score, bool) or not isinstance(score, int | float) or score != score:
            raise BadRow(f"has no score: expected a number in {' or '.join(SCORES)}", column, check="type")
        return float(score), text({column: value.get("response")}, column)
