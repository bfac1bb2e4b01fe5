"""The pipeline, top to bottom: load, look up, search, emit. Only loading and writing touch the outside world."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from axoc.facts.stored import as_stored
from axoc.inputs import Inputs, read_inputs
from axoc.ir.bundle import Bundle
from axoc.ir.canonical import digest
from axoc.ir.plan import NoPlan, Plan
from axoc.search.choose import Facts, search
from axoc.spec.placing import placed


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A plan with the inputs it came from: what emission needs."""

    inputs: Inputs
    result: Plan | NoPlan


def plan(spec_path: Path, inventory: str | None, *, frozen: bool = False) -> Planned:
    """Spec file and inventory to a plan. Raises UserError with every problem found in the inputs."""
    with placed(spec_path, inventory_is_given=inventory is not None):
        inputs = read_inputs(spec_path, inventory, frozen=frozen)
        facts = Facts(
            model=inputs.model,
            clusters=inputs.clusters,
            data=inputs.data,
            spec_digest=digest(inputs.spec_text.encode()),
            notes=inputs.notes,
        )
        return Planned(inputs=inputs, result=search(as_stored(inputs.request, inputs.model.stored), facts))


def bundle(planned: Planned, out: Path) -> Bundle:
    """The bundle in memory. Relative paths of the spec count from the working directory, as seen from ``out``."""
    from axoc.emit.bundle import build_bundle

    assert isinstance(planned.result, Plan)
    inputs = planned.inputs
    return build_bundle(
        planned.result,
        inputs.spec_text,
        inputs.lock_text,
        plugin_files=inputs.plugin_files,
        config_text=inputs.config_text,
        inventory=inputs.inventory,
        base_dir=Path(os.path.relpath(Path.cwd(), out.resolve())).as_posix(),
    )
