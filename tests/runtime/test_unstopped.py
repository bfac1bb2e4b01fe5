"""What is measured and watched without stopping the device: input, tokens, steps, and a loss that is no number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from axoc_runtime.callbacks.divergence import Divergence, find_rows, token_rows
from axoc_runtime.callbacks.spans import Spans
from axoc_runtime.errors import RuntimeFailure
from axoc_runtime.metrics import _share
from axoc_runtime.objectives.planned import Waited, real_tokens

from runtime.jobs import make_job
from runtime.packs import documents, packed

pytestmark = pytest.mark.slow


def test_waiting_for_input_is_measured_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("axoc_runtime.callbacks.spans.time", SimpleNamespace(perf_counter=lambda: clock.now))

    def slow() -> Iterator[int]:
        for number in range(3):
            clock.now += 2.0
            yield number

    spans = Spans(on_device=False)
    for _ in Waited(slow(), spans):
        clock.now += 5.0
    assert spans.seconds == [2.0] * 3
    assert _share(1.0, 3.0) == 0.25


def test_tokens_of_a_pack_are_those_of_its_documents() -> None:
    assert int(real_tokens(packed(documents(9, 14, 5), 32))) == 28
    assert int(real_tokens(packed(documents(9, 14, 9), 32))) == 32
    twice_padded = packed(documents(9, 14), 32)
    twice_padded["cu_seq_lens_q"] = torch.tensor([0, 9, 23, 29, 32], dtype=torch.int32)
    assert int(real_tokens(twice_padded)) == 23


def test_a_device_is_not_asked_for_a_span_until_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are recorded, and waited for once, when the seconds are read."""
    told: list[str] = []

    class Event:
        def __init__(self, **_: Any) -> None:
            self.at = 0.0

        def record(self) -> None:
            told.append("record")
            self.at = 1000.0 * len(told)

        def synchronize(self) -> None:
            told.append("wait")

        def elapsed_time(self, other: Event) -> float:
            return other.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    spans = Spans(on_device=True)
    for _ in range(3):
        spans.begin()
        spans.end()
    assert told == ["record"] * 6 and len(spans) == 3
    assert spans.seconds == [1.0, 1.0, 1.0] and spans.total == 3.0
    assert told.count("wait") == 1


class Watched:
    """A run whose steps are made by hand."""

    def __init__(self, folder: Path, device: str) -> None:
        self.divergence = Divergence(make_job(folder, distributed__device=device))
        self.trainer = self.divergence.trainer = SimpleNamespace(
            args=SimpleNamespace(), training_step=lambda model, inputs: inputs["loss"], _get_grad_norm=lambda: torch.ones(()),
            _get_learning_rate=lambda: 0.125, train_dataset=None, processing_class=None,
        )  # fmt: skip
        self.divergence.on_train_begin(None, None, None)

    def step(self, number: int, loss: float, **due: bool) -> None:
        self.trainer.training_step(None, {"loss": torch.tensor(loss)})
        self.trainer._get_grad_norm()
        state = SimpleNamespace(global_step=number - 1)
        self.divergence.on_pre_optimizer_step(None, state, None)
        flags = {"should_log": False, "should_evaluate": False, "should_save": False, "should_training_stop": False}
        self.divergence.on_step_end(None, state, SimpleNamespace(**(flags | due)))


def test_on_a_cpu_it_ends_before_the_optimizer_steps(tmp_path: Path) -> None:
    run = Watched(tmp_path, "cpu")
    run.step(1, 2.0)
    with pytest.raises(RuntimeFailure, match=r"the loss is no number at step 2 .*last good loss was 2\)"):
        run.step(2, float("nan"))


def test_a_gpu_is_asked_a_step_later(tmp_path: Path) -> None:
    run = Watched(tmp_path, "cuda")
    run.step(1, 2.0)
    run.step(2, float("nan"))
    run.trainer._get_learning_rate = lambda: 0.5
    with pytest.raises(RuntimeFailure, match=r"no number at step 2 \(learning rate 0\.125; the last good loss was 2\)"):
        run.step(3, 1.0)


@pytest.mark.parametrize("due", ["should_log", "should_evaluate", "should_save", "should_training_stop"])
def test_and_before_anything_comes_of_it(tmp_path: Path, due: str) -> None:
    run = Watched(tmp_path, "cuda")
    with pytest.raises(RuntimeFailure, match="no number at step 1"):
        run.step(1, float("inf"), **{due: True})


class Rows:
    """Prepared rows, as the preparation's own class reads them."""

    column_names = ("input_ids", "labels", "length")

    def __init__(self, found: list[list[int]]) -> None:
        self.found = found

    def lengths(self) -> list[int]:
        return [len(ids) for ids in self.found]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": torch.tensor(self.found[index]).numpy()}


def test_documents_of_a_bad_batch_are_found_among_the_rows() -> None:
    """Of a pack, and of padded rows; its padding is none of them."""
    found = documents(9, 14, 5)
    rows = Rows([ids.tolist() for ids, _ in (found[2], found[0], found[1])])
    packs = SimpleNamespace(rows=rows, column_names=("documents",))
    assert find_rows(packs, list(token_rows(packed(found, 32)))) == [1, 2, 0]
    ids = torch.zeros(2, 14, dtype=torch.long)
    ids[0, :9], ids[1] = found[0][0], found[1][0]
    mask = torch.ones_like(ids)
    mask[0, 9:] = 0
    assert find_rows(rows, list(token_rows({"input_ids": ids, "attention_mask": mask}))) == [1, 2]
    assert find_rows(rows, [[1, 2, 3]]) == [None]
