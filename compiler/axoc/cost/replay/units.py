"""FSDP2's units in a replay: whose weights are gathered and let go of, and whose gradients are reduced, on which stream.

Source: torch 2.11, distributed/fsdp/_fully_shard: foreach_all_gather and foreach_reduce (_fsdp_collectives.py), and
wait_for_unshard, pre_backward and post_backward (_fsdp_param_group.py).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from axoc.cost import states
from axoc.cost.collectives import collectives
from axoc.cost.columns import Columns
from axoc.cost.replay.order import block_elements
from axoc.cost.replay.recorder import GATHERING, REDUCING, Call, Recorder
from axoc.cost.scenario import Scenario
from axoc.cost.tape import Storage
from axoc.cost.units import blocks_per_unit


class Units:
    """Of one candidate. Where nothing is sharded so, all sizes are 0 and nothing happens."""

    def __init__(self, tape: Recorder, scenario: Scenario, c: Columns) -> None:
        shared, self.tape = collectives(scenario, c), tape
        active = bool(c.uses("fsdp")[0]) and int(c.shard_degree[0]) > 1
        share = 1.0 if active else 0.0
        self.block = share * float(shared.unit[0])
        self.blocks = round(float(blocks_per_unit(scenario, c)[0]))
        self.tied = not scenario.sizes.lm_head
        self.resident = share * float(shared.resident[0])
        """The head with the final norm, and a tied embedding."""
        self.embedding = 0.0 if self.tied else share * float(shared.at_embedding[0] - shared.root[0])
        whole = states.trained_bytes(scenario) / scenario.trainable_bytes * float(scenario.compute_bytes)
        self.leave = bool(c.offloads_parameters[0])
        """Reduced gradients are copied to the host at once (foreach_reduce, offload_to_cpu), and shards come from it to be gathered."""
        self.ranks = float(c.shard_degree[0])
        self.widened = float(scenario.weight_bytes) / float(scenario.compute_bytes)
        elements = block_elements(scenario)
        self.shares = [n / sum(elements) / self.blocks for n in elements] * self.blocks
        """Of each weight in its unit."""
        self.matrix = float(scenario.sizes.vocabulary_matrix) * float(scenario.compute_bytes)
        """Of the embedding's unit, and of the head's, in which the final norm comes as well."""
        here = replace(c, offload=np.zeros_like(c.offload))
        self.part = float(states.gradients(scenario, here)[0]) / max(1.0, whole)
        """Of a unit's whole gradients, what this rank gets."""
        self.first = True
        self._held: list[Storage] = []
        self._prefetched: list[Storage] = []
        self._whole: list[Storage] = []
        self._inputs: list[Storage] = []
        tape.reduces = active

    def gather(self, size: float) -> Storage:
        """In a forward: the flat output of the gather before is let go of once the next one is there."""
        flat = self._gathered(size)
        self.flush()
        self._held.append(flat)
        return self.tape.allocate(size)

    def _gathered(self, size: float) -> Storage:
        """The flat output, into which this rank's shards are copied. Those that are on the host lie on the device until then, each
        copied as it is and cast there (_fsdp_param.py, all_gather_inputs)."""
        t, shards = self.tape, list[Storage]()
        for share in self._shares(size) if self.leave and size else []:
            mine = size / self.ranks * share
            own = t.allocate_on(GATHERING, mine * self.widened)
            shards.append(own if self.widened == 1.0 else t.allocate_on(GATHERING, mine))
            if shards[-1] is not own:
                t.release(own)
        flat = t.allocate_on(GATHERING, size)
        self._release(shards)
        return flat

    def _shares(self, size: float) -> list[float]:
        if size == self.block:
            return self.shares
        matrix = min(1.0, self.matrix / size)
        return [matrix, 1.0 - matrix]

    def flush(self) -> None:
        self._release(self._held)

    def begin(self, number: int) -> None:
        """Before block ``number`` runs forward."""
        if self.block and number % self.blocks == 0:
            if self.tape.records:
                self.tape.nodes.append(Call(self._ended_backward))  # type: ignore[arg-type]
            self._whole.append(self.gather(self.block))

    def end(self, number: int, last: bool) -> None:
        """After it has."""
        if self.block and (last or (number + 1) % self.blocks == 0):
            self._release(self._whole)
            if self.tape.records:
                self.tape.nodes.append(Call(partial(self._begin_backward, number < self.blocks)))  # type: ignore[arg-type]

    def _begin_backward(self, bottom: bool) -> None:
        """What was prefetched is copied out; then the next unit's gather begins: behind the bottom one an untied embedding's."""
        flat = self._prefetched.pop() if self._prefetched else self._gathered(self.block)
        self._whole.append(self.tape.allocate(self.block))
        self.tape.release(flat)
        self._prefetched.append(self._gathered(self.embedding if bottom else self.block))

    def _ended_backward(self) -> None:
        self._release(self._whole)
        self.reduce()

    def reduce(self) -> None:
        """Gradients are copied into one input, which stays until the next unit's. This rank's part of their sum lies on the
        stream that reduces, and is raised there to the weights' dtype; that of a later micro-batch is added to the first one's."""
        t = self.tape
        self._release(self._inputs)
        size = sum(float(s.size) for s in t.unreduced)
        self._inputs.append(t.allocate(size))
        self._release(t.unreduced)
        low = t.allocate_on(REDUCING, size / self.ranks if self.widened > 1.0 else 0.0)
        part = t.allocate_on(REDUCING, size * self.part)
        t.release(low)
        if self.first and not self.leave:
            t.gradients.append(part)
        else:
            t.release(part)

    def finish(self) -> None:
        """The backward is over."""
        self._release(self._prefetched)
        self.reduce()
        self._release(self._inputs)

    def _release(self, storages: list[Storage]) -> None:
        while storages:
            self.tape.release(storages.pop())
