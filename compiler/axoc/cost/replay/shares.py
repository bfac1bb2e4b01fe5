"""ZeRO's first two stages in a replay: how gradients come to lie in one buffer, of all parameters that touch a rank's share.

Source: deepspeed 0.19.8, runtime/zero/stage_1_and_2.py: setup_buckets, reduce_independent_p_g_buckets_and_remove_grads,
reduce_ipg_grads, copy_grads_in_partition, independent_gradient_partition_epilogue.
"""

from __future__ import annotations

from axoc.cost import states
from axoc.cost.buckets import reduce_bucket_elements
from axoc.cost.columns import Columns
from axoc.cost.partition import partition
from axoc.cost.replay.recorder import Recorder
from axoc.cost.scenario import Scenario
from axoc.cost.tape import Storage


class Shares:
    """Of one candidate. Stage 2 takes each gradient as it arrives, on the last rank, whose are the first; stage 1 takes them
    all when a step's last backward is over, in the parameters' order, on the first rank."""

    def __init__(self, tape: Recorder, scenario: Scenario, c: Columns) -> None:
        self.tape = tape
        self.active = bool((c.uses("zero1", "zero2") & ~c.offloads_optimizer)[0])
        self.arrive = self.active and bool(c.uses("zero2")[0])
        self.tied = scenario.is_full and not scenario.sizes.lm_head
        self.element = states.module_bytes(scenario)
        self.limit = float(reduce_bucket_elements(scenario.model.hidden_size))
        found = partition(scenario, c.data_parallel)
        self.owned = float((found.elements_of_last if self.arrive else found.elements)[0])
        self.part = float((found.largest_part_of_last if self.arrive else found.largest_part)[0])
        self.share = scenario.trainable / float(c.data_parallel[0])
        self.waiting: Storage | None = None
        self._bucket: Storage | None = None
        self._kept: Storage | None = None
        self._left: list[Storage] = []
        self._begin_pass()
        if self.active:
            tape.arrived = self.take if self.arrive else self._first
            tape.hands_over = self.arrive

    def _begin_pass(self) -> None:
        self._pending: list[tuple[float, Storage | None]] = []
        self._before = 0.0
        """Elements of the parameters that have been reduced."""
        self._awaits = self.tied

    def _first(self, gradient: Storage) -> None:
        """The bucket is made with the first gradient."""
        if self._bucket is None:
            self._bucket = self.tape.allocate_on(0, self.limit * self.element)

    def take(self, gradient: Storage) -> None:
        """A tied matrix' first one is no gradient yet: the lookup's is added to it."""
        self._first(gradient)
        if self._awaits and self.arrive:
            self._awaits, self.waiting = False, gradient
            return
        elements = float(gradient.size) / self.element
        if sum(n for n, _ in self._pending) + elements > self.limit:
            self._reduce()
        if elements <= self.limit:  # it moves into the bucket, a larger one stays where it is
            self.tape.release(gradient)
        self._pending.append((elements, None if elements <= self.limit else gradient))

    def taken(self) -> Storage:
        """The tied matrix' gradient that has waited."""
        waited, self.waiting = self.waiting, None
        assert waited is not None
        return waited

    def _reduce(self) -> None:
        """Slices for two ranks are put side by side first. What this rank owns is copied into its buffer."""
        t, elements = self.tape, sum(n for n, _ in self._pending)
        if self._before < self.share < self._before + elements:
            t.release(t.allocate_on(0, elements * self.element))
        for number, gradient in self._pending:
            mine = self._before < self.share
            self._before += number
            if mine and self._kept is None:
                self._kept = t.allocate_on(0, self.owned * self.element)
            if gradient is not None and (mine or self.arrive):
                t.release(gradient)
            elif gradient is not None:
                self._left.append(gradient)
        self._pending = []

    def finish(self, *, first: bool, last: bool) -> None:
        """A micro-batch's backward is over. The buffer of a step's first one is what later ones are added to."""
        t = self.tape
        if not self.active or not (self.arrive or last):
            return
        if not self.arrive:
            gradients, t.gradients = t.gradients[::-1], []
            for gradient in gradients:
                self.take(gradient)
        self._reduce()
        for gradient in self._left:
            t.release(gradient)
        kept, bucket, self._kept, self._bucket, self._left = self._kept, self._bucket, None, None, []
        if bucket is not None:
            t.release(bucket)
        if kept is not None and (first or not self.arrive):
            t.gradients.append(kept)
        elif kept is not None:
            t.release(kept)
        self._begin_pass()

    def norms(self) -> None:
        """Of fp64 copies, one parameter's at a time (get_grad_norm_direct)."""
        if self.active:
            self.tape.release(self.tape.allocate(self.part * 8.0))
