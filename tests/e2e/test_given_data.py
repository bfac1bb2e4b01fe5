"""The quickstart on data as public repositories have them: only the path changes, the format is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.test_quickstart import finished, metrics, plan, start
from e2e.test_quickstart import work as work  # the fixture, for these tests too

pytestmark = pytest.mark.slow

GIVEN = Path(__file__).resolve().parents[3] / "shared" / "data"
NAMES = [
    "alpaca_en_demo.json",
    "c4_demo.jsonl",
    "dpo_en_demo.json",
    "glaive_toolcall_en_demo.json",
    "sharegpt_conversation.json",
]
SINGLE = "sharegpt_conversation.json"
"""One conversation: nothing of it can be held out."""


@pytest.mark.parametrize("name", NAMES)
def test_it_trains(work: Path, name: str) -> None:
    if not (GIVEN / name).is_file():
        pytest.skip(f"needs ../shared/data/{name}, a public file that is not part of this repository")
    limits = {"dataset__max_seq_length": 160, "dataset__validation_split": 0.02}
    steps = dict.fromkeys(("training__max_steps", "training__eval_steps", "training__save_steps"), 8)
    plan(work, dataset__path=str(GIVEN / name), samples__prompts=[], **limits, **steps)
    shown = finished(start(work))
    assert ("learns the chosen one" in (work / "axoc-output/data-check.csv").read_text()) == name.startswith("dpo")
    assert metrics(work)["steps"] == 8, shown
    assert name == SINGLE or metrics(work)["perplexity_after"] < metrics(work)["perplexity_before"]
