"""Which layers the runtime converts to float8, against which the planner counts: for every family, at its published widths."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from axoc.facts.catalog import entry_files, load_entry
from axoc.facts.float8 import float8_linears, obstacles
from facts.test_against_transformers import EXAMPLES, build, facts_of

pytestmark = pytest.mark.slow

FEW = {"num_hidden_layers": 3, "n_layer": 3, "first_k_dense_replace": 1}
OTHERS = ("gpt2", "falcon", "falcon-40b")
"""Conv1D, and a class of its own."""


def test_weights_gradients_are_planned_as_they_are_computed() -> None:
    from axoc.cost import float8 as planned
    from axoc_runtime.kernels import float8 as computed

    assert planned.WEIGHT_GRADIENTS == computed.WEIGHT_GRADIENTS


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_runtime_finds_as_many_layers_as_are_planned(name: str) -> None:
    from axoc_runtime.kernels.float8 import float8_layers

    entry = next(e for e in map(load_entry, entry_files()) if EXAMPLES[name] in (e.id, *e.aliases))
    config = {k: FEW.get(k, v) for k, v in entry.config.items()}
    facts = facts_of(config)
    model = SimpleNamespace(decoder_block=facts.decoder_block, family=facts.family)
    found = len(float8_layers(SimpleNamespace(model=model), build(config)))  # type: ignore[arg-type]
    if name in OTHERS:
        assert list(obstacles(facts)) and found == 0
    else:
        assert not list(obstacles(facts)) and found == float8_linears(facts) > 0
