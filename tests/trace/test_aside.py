"""What children of a trace find: the same as it would alone, and nothing that it finds as well."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import torch
from axoc_runtime.trace import aside, backward, generated, inductor, step
from axoc_runtime.trace.aside import Aside
from axoc_runtime.trace.cuda_as_cpu import as_on_cuda
from axoc_runtime.trace.device import device_named
from axoc_runtime.trace.step import Traced, trace_depth

from .shapes import LLAMA, job

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not aside.can_fork(), reason="one core, or no fork"),
]
Traces = Callable[[], Traced]
H100: Final = device_named("h100-sxm-80gb")


@pytest.fixture
def traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Traces:
    """Of a compiled job that is evaluated; every graph's program comes into a file, by whichever process wrote it."""
    written = inductor.written

    def noted(graph: Any) -> Any:
        made = written(graph)
        with (tmp_path / "graphs").open("a") as file:
            file.write(f"{'backward' if graph.is_backward else 'forward'} {hash_of(made.call)} {os.getpid()}\n")
        return made

    monkeypatch.setattr(inductor, "written", noted)
    plan = job(
        tmp_path, LLAMA, model__compile=True, model__dtype="bfloat16", dataset__validation_split=0.1,
        training__gradient_checkpointing="full",
    )  # fmt: skip

    def run() -> Traced:
        torch._dynamo.reset()
        (tmp_path / "graphs").write_text("")
        config = {**LLAMA, "num_hidden_layers": 2}
        return trace_depth(plan, config, H100, 1, run="only")

    return run


def hash_of(program: Any) -> int:
    """Its text also has the numbers of graphs that were made before it."""
    code = program.code
    return hash((code.co_code, code.co_names, code.co_varnames, repr(code.co_consts)))


class Graph(NamedTuple):
    kind: str
    code: str


def graphs(folder: Path) -> list[Graph]:
    return [Graph(*line.split()[:2]) for line in (folder / "graphs").read_text().splitlines()]


def processes(folder: Path) -> set[str]:
    return {line.split()[2] for line in (folder / "graphs").read_text().splitlines()}


def alone(traced: Traces, monkeypatch: pytest.MonkeyPatch) -> Traced:
    with monkeypatch.context() as patch:
        for module in (step, inductor):
            patch.setattr(module, "can_fork", lambda: False)
        return traced()


def same(one: Traced, other: Traced) -> bool:
    """Events after the evaluation are those of its end, in any order."""
    ends = [max(i for i, e in enumerate(t.events) if e.phase == "evaluate") + 1 for t in (one, other)]
    return one.phases == other.phases and one.events[: ends[0]] == other.events[: ends[1]]


def test_a_trace_s_children_find_what_it_finds_alone_and_each_graph_is_made_once(
    tmp_path: Path, traced: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = alone(traced, monkeypatch)
    made_here, processes_here = graphs(tmp_path), processes(tmp_path)
    found = traced()
    made = graphs(tmp_path)
    assert sorted(made) == sorted(made_here), "none is made twice, by two processes"
    backwards = [graph for graph in made if graph.kind == "backward"]
    assert len(processes_here) == 1 and backwards
    assert len(processes(tmp_path)) == 2 + len(backwards), "each backward is a child's, and so is the evaluation"
    assert same(found, here)


def test_an_evaluation_of_blocks_that_are_not_compiled_is_a_child_s_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = job(tmp_path, LLAMA, model__dtype="bfloat16", dataset__validation_split=0.1)
    began = []
    monkeypatch.setattr(step, "Aside", lambda work: began.append(1) or Aside(work))

    def traced() -> Traced:
        return trace_depth(plan, {**LLAMA, "num_hidden_layers": 2}, H100, 1, run="whole")

    here = alone(traced, monkeypatch)
    assert not began
    found = traced()
    assert began and same(found, here)


def two_tensors(live: Any) -> None:
    with live.during("evaluate"):
        a = torch.zeros(1024)
        _ = a + 1


def test_an_evaluation_is_taken_where_it_began_with_what_is_there() -> None:
    with as_on_cuda(H100) as live:
        held = torch.zeros(256)
        begun = [step.Evaluation(live, lambda: two_tensors(live)) for _ in range(2)]
        del held
        held = torch.zeros(256)
        assert begun[0].taken(), "as much as before"
        assert live.peaks["evaluate"] == 1024 + 8192
        more = torch.zeros(256)
        before = list(live.events)
        assert not begun[1].taken() and live.events == before
        del held, more


def test_an_evaluation_that_fails_is_not_taken() -> None:
    def fails() -> None:
        raise RuntimeError("a child's")

    with as_on_cuda(H100) as live:
        assert not step.Evaluation(live, fails).taken()


class Output:
    """One of Inductor's."""

    def __init__(self, program: Any) -> None:
        self.current_callable = program

    def __call__(self, args: list[Any]) -> Any:
        return self.current_callable(args)


@pytest.mark.parametrize("whole", [True, False])
def test_a_backward_that_is_more_than_its_program_is_made_by_the_trace_itself(whole: bool) -> None:
    made = []

    def lowered() -> Any:
        source = f"def call(args):\n    return [a * factor for a in args], {os.getpid()}"
        program: Any = generated.program(source, {"factor": 3})
        if whole:
            program.written = source, {"factor": 3}
        made.append(os.getpid())
        return Output(program)

    call = backward.later(lowered)
    for _ in range(2):
        found, process = call([1, 2])
        assert found == [3, 6]
        assert (process == os.getpid()) is not whole
    assert made == ([] if whole else [os.getpid()])


def test_a_child_tells_what_it_found_or_that_it_failed(capfd: pytest.CaptureFixture[str]) -> None:
    assert Aside(lambda: {"bytes": 1 << 40, "text": "x" * 1_000_000}).found() == {
        "bytes": 1 << 40,
        "text": "x" * 1_000_000,
    }
    assert Aside(lambda: 1 // 0).found() is None
    assert Aside(lambda: lambda: None).found() is None, "nothing that pickle takes"
    assert Aside(lambda: os._exit(0)).found() is None, "it ended before it told"
    assert capfd.readouterr() == ("", "")
