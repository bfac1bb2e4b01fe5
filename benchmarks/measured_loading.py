"""How measure.py's quantized models come to the device: whole in bf16, the packed weights behind them, and when all are packed what
was bf16 goes back (empty_cache). It leaves a hole in the middle of the addresses, which a bundle's own loading, weight by weight,
does not; where large tensors lie afterwards depends on it. For the trace (as_measured) and for the planner's replay (loading).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from axoc.cost.replay.conditions import Loading
from axoc.cost.replay.order import trained_elements
from axoc.cost.replay.recorder import Recorder
from axoc.cost.scenario import Scenario
from axoc.cost.states import trained_bytes
from axoc.facts.parameters import linear_shapes

if TYPE_CHECKING:
    from axoc_runtime.trace.liveness import Event
    from axoc_runtime.trace.step import Traced

PHASE = "load"
BF16_BYTES = 2
FP32_BYTES = 4


def as_measured(config: dict[str, Any], run: Traced) -> tuple[list[Event], int]:
    """``run``'s events, begun as measure.py begins. The trace's own loading makes the embedding, what else stays as it is, the packed
    weights, and then raises parameters to fp32, the first of which is its first free. And from where on peaks count: measure.py resets
    them when the model stands."""
    from axoc_runtime.trace.liveness import Event
    from axoc_runtime.trace.model import with_depth

    raised = next(i for i, event in enumerate(run.events) if event.num_bytes < 0) - 1
    embedding, *others = run.events[:raised]
    first = 1 + max(event.block for event in run.events)
    sizes = linear_bytes(with_depth(config, run.layers))
    made = [Event(first + number, size, PHASE) for number, size in enumerate(sizes)]
    gone = [event._replace(num_bytes=-event.num_bytes) for event in made]
    begun = [embedding, *made, *others, *gone, Event(0, 0, PHASE)]
    return [*begun, *run.events[raised:]], len(begun)


def linear_bytes(config: dict[str, Any]) -> list[int]:
    """Of each layer that is packed, in the order in which modules are made."""
    import torch
    from axoc_runtime.trace.liveness import BLOCK_BYTES
    from axoc_runtime.trace.model import library_config
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(library_config(config))
    linears = [m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and not n.endswith("lm_head")]
    return [-(-linear.weight.numel() * BF16_BYTES // BLOCK_BYTES) * BLOCK_BYTES for linear in linears]


def loading(scenario: Scenario) -> Loading:
    """The model in bf16, its packed weights with all else that stays behind it, and then embedding and head in fp32."""
    shapes, sizes = linear_shapes(scenario.model), scenario.sizes

    def load(t: Recorder, resident: float) -> None:
        embedding = t.allocate(float(BF16_BYTES * sizes.embedding))
        linears = [t.allocate(float(BF16_BYTES * s.weights)) for s in shapes if s.quantizable for _ in range(s.copies)]
        head = t.allocate(float(BF16_BYTES * sizes.lm_head))
        adapters = trained_bytes(scenario)
        t.allocate(resident - adapters - FP32_BYTES * (sizes.embedding + sizes.lm_head))
        for linear in linears:
            t.release(linear)
        t.allocator.empty_cache()
        for elements, low in ((sizes.embedding, embedding), (sizes.lm_head, head)):
            t.allocate(float(FP32_BYTES * elements))
            t.release(low)
        elements = list(trained_elements(scenario))
        for size in elements:
            t.allocate(adapters * size / sum(elements))

    return load
