"""Host seconds of going through all of a model's modules in Python, which the Trainer does several times a step, the device idle.

In each micro-step once for ``model.train()``, and twice more to count its FLOPs: ``num_parameters`` walks modules, and then parameters
(transformers/trainer.py, training_step and floating_point_ops). The bundle's runtime leaves the count out
(runtime/axoc_runtime/objectives/planned.py). In each step to clip gradients, and to let them go.
A plain block is a dozen modules. An adapter adds ten to a layer, most of them empty.
"""

from __future__ import annotations

from typing import Final

from axoc.cost.launching import host_costs
from axoc.cost.modules import modules
from axoc.cost.scenario import Scenario

TRAINING_MODE: Final = 1.0
COUNTING: Final = 2.0


def each_micro_step(scenario: Scenario) -> float:
    return (TRAINING_MODE + COUNTING * scenario.counts_operations) * each_pass(scenario)


def each_pass(scenario: Scenario) -> float:
    """Of one walk."""
    return modules(scenario) * host_costs(scenario).walk
