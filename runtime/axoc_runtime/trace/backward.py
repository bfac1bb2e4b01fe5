"""A backward graph's program, written by a child of this process while it goes on: nobody asks for it before the first backward pass,
and by then the next graph has been made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._guards import CompileContext, TracingContext, compile_context, tracing

from axoc_runtime.trace.aside import Aside
from axoc_runtime.trace.generated import program

Program = Callable[[list[Any]], Any]


def later(lowered: Callable[[], Any]) -> Program:
    """What ``lowered`` gives, an output of Inductor's, to be asked for when it is called first."""
    contexts = TracingContext.try_get(), CompileContext.try_get()
    aside = Aside(lambda: written_by(lowered()))
    known: list[Program] = []

    def call(args: list[Any]) -> Any:
        if not known:
            told = aside.found()
            known.append(here(lowered, *contexts) if told is None else program(*told))
        return known[0](args)

    call._boxed_call = True  # type: ignore[attr-defined]  # AOTAutograd: it empties the list it is given
    return call


def written_by(output: Any) -> tuple[str, dict[str, Any]]:
    """The program of one of Inductor's outputs. Raises AttributeError where that is more than its program."""
    source, constants = output.current_callable.written
    return source, constants


def here(lowered: Callable[[], Any], traced: Any, compiled: Any) -> Program:
    """In this process, as AOTAutograd has a backward compiled that was left for later (_AutogradBackwardCompiler)."""
    with tracing(traced), compile_context(compiled), torch._C._DisableAutocast(), torch.no_grad():
        made: Program = lowered()
    return made
