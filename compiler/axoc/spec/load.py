"""load_spec: a spec's bytes to a PlanRequest, or every problem in it at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from axoc.errors import UserError
from axoc.ir.request import PlanRequest, PolicyRequest
from axoc.spec.checks import check, touches
from axoc.spec.decode import decode
from axoc.spec.diagnose import diagnostics, problems_of, written_path
from axoc.spec.document import Document, read_document
from axoc.spec.lower import lower, lower_policy
from axoc.spec.problems import Problem
from axoc.spec.prune import without
from axoc.spec.spec import Spec


def load_spec(content: bytes, file: str) -> PlanRequest:
    """``file`` is the name shown in messages, and names the run where the spec does not.

    Raises UserError with a diagnostic for each problem: of the text, of single fields and between fields.
    """
    document = read_document(decode(content, file), file)
    spec, problems = _validate(document)
    if problems or spec is None:
        raise UserError(*diagnostics(problems, document))
    return lower(spec, file, _explicit(document))


def load_policy(content: bytes, file: str) -> PolicyRequest:
    """The policy of a file that holds nothing else, so that no model needs to be named. Raises UserError as above."""
    document = read_document(decode(content, file), file)
    spec, problems = _model(document.values, document)
    problems = [*document.problems, *problems]
    if problems or spec is None:
        raise UserError(*diagnostics(problems, document))
    return lower_policy(spec.policy)


def _validate(document: Document) -> tuple[Spec | None, list[Problem]]:
    """Where fields are wrong, the rest is still checked: as if they had not been written."""
    spec, problems = _model(document.values, document)
    unread = {p.path for p in document.problems}
    problems = [*document.problems, *(p for p in problems if not touches(p, unread))]
    wrong = {p.path for p in problems}
    if spec is None:
        spec, _ = _model(without(document.values, wrong), document)
    between = check(spec) if spec is not None else ()
    placed = (replace(p, path=written_path(p.path, document)) for p in between)
    return spec, problems + [p for p in placed if not touches(p, wrong)]


def _model(values: Any, document: Document) -> tuple[Spec | None, list[Problem]]:
    try:
        return Spec.model_validate(values), []
    except ValidationError as error:
        return None, problems_of(error, document)


def _explicit(document: Document) -> frozenset[str]:
    """Dotted names of the keys in the file, list indices left out; short forms stand for the key they give."""
    names = {".".join(part for part in path if isinstance(part, str)) for path in document.keys}
    shorts = {"model": "model.id", "dataset": "dataset.path", "target": "target.type"}
    return frozenset(names | {long for short, long in shorts.items() if isinstance(document.values.get(short), str)})
