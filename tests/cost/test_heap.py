"""The C library's heap, by hand, and what it makes of a CPU's plan."""

from __future__ import annotations

import pytest
from asking import LORA, plan
from axoc.cost import host
from axoc.cost.replay.heap import TOP_PAD, Heap
from axoc.ir.plan import Plan
from axoc.units import KIB, MIB


def heap() -> Heap:
    """Above its first threshold: a mapped block of 4 MiB was freed."""
    made = Heap()
    made.free(made.allocate(4 * MIB))
    assert made.peak_resident >= 4 * MIB and made.mapped == 0
    made.begin()
    return made


def test_a_hole_does_not_fit_a_tensor_like_the_one_that_left_it() -> None:
    h = heap()
    first, _stays = h.allocate(MIB), h.allocate(MIB)
    h.free(first)
    before = h.top
    h.allocate(MIB)
    assert h.top > before, "the hole was taken"
    at = h.top
    h.allocate(MIB - 256)
    assert h.top == at, "a smaller one fits it"


def test_what_is_above_the_threshold_is_mapped_and_given_back() -> None:
    h = heap()
    chunk = h.allocate(5 * MIB)
    assert h.mapped >= 5 * MIB and h.end == 0
    h.free(chunk)
    assert h.mapped == 0 and h.threshold >= 5 * MIB
    h.free(h.allocate(64 * MIB))
    assert h.threshold < 32 * MIB, "no larger than the highest"


def test_trimming_gives_back_what_is_free_and_keeps_what_is_not() -> None:
    h = heap()
    gone, _stays = h.allocate(MIB), h.allocate(2 * MIB)
    h.free(gone)
    h.begin()
    assert h.kept == h.allocated and 2 * MIB <= h.kept < 2 * MIB + KIB
    h.allocate(MIB)
    assert 3 * MIB <= h.peak_resident < 3 * MIB + TOP_PAD + 8 * KIB


def test_a_cpus_plan_has_what_stays_resident_of_freed_tensors_and_no_pages_of_files() -> None:
    changes = {"adapter": LORA, "model__dtype": "float32", "dataset__max_seq_length": 128}
    made = plan("Qwen/Qwen2.5-0.5B", "cpu", **changes)
    assert isinstance(made, Plan)
    memory = made.chosen.estimate.memory
    assert 1.05 * memory.peak_allocated_bytes < memory.peak_reserved_bytes < 2 * memory.peak_allocated_bytes
    process = memory.device_used_bytes - memory.peak_reserved_bytes
    assert process == host.CPU_PROCESS_BYTES + host.CPU_LIBRARY_BYTES
    trained = next(p for p in memory.host_by_phase if p.phase == "train")
    tensors = next(i.bytes for i in trained.items if i.item == host.TENSORS)
    assert tensors == pytest.approx(memory.peak_reserved_bytes * made.chosen.candidate.world_size, abs=2)
