"""What sharing the work over ranks needs beside the states, phase by phase: gathered weights, gradients being reduced.

Sources: torch 2.11, distributed/fsdp/_fully_shard (_fsdp_param_group.py, _fsdp_collectives.py); deepspeed 0.19.8,
runtime/zero (stage_1_and_2.py, stage3.py, partitioned_param_coordinator.py). Named below are their methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from axoc.cost import gradient_terms, split, states, uneven
from axoc.cost.buckets import LIVE_ELEMENTS, reduce_bucket_elements
from axoc.cost.columns import Bools, Columns, Floats, Ints
from axoc.cost.fetched import fetched, reads_head
from axoc.cost.partition import Partition, kept_too_large, partition
from axoc.cost.reducing import Units
from axoc.cost.scenario import Scenario
from axoc.cost.units import blocks_per_unit


@dataclass(frozen=True, kw_only=True)
class Collectives:
    """Bytes on one rank, one row a candidate; 0 where a strategy has no such thing."""

    root: Floats
    """Weights that FSDP2 has gathered for the whole of a forward and of a backward, where the head is tied."""
    unit: Floats
    """Weights of one block, gathered."""
    in_flight: Floats
    """A gather's flat output, from which weights are copied."""
    scattered: Floats
    """Whole gradients, while they are reduced and until they are, at the bottom block."""
    units: Units
    head_scattered: Floats
    """Those of an untied head, during the last block's backward."""
    bucket: Floats
    """ZeRO-1/2's reduce bucket, in the backward."""
    bucket_stays: Floats
    """Of it, what a later micro-batch's forward finds."""
    partition: Floats
    """ZeRO-1/2's buffer of the gradients a rank keeps, whole, of one micro-batch."""
    held_reduced: Floats
    """Of hybrid shard: what was all-reduced stays until the backward ends, beside the gradients made of it."""
    arriving: Floats
    """The same under ZeRO-2, which makes it in the backward; ZeRO-1 does so at its end."""
    arrives: Floats
    """Share of the backward that is over when the first of those gradients arrives."""
    arriving_first: Floats
    """Of the last rank, which has perhaps fewer, beside what it carries less from a micro-batch before. Its are the first."""
    pending: Floats
    """Of ZeRO-2, a gradient that the bucket has no room for: it stays until the next one comes, the largest at worst."""
    copies: Floats
    """Of the gradients a rank keeps, in the optimizer's step."""
    inside_forward: Floats
    """Weights gathered in the last block's forward, and on their way."""
    inside_backward: Floats
    """The same in its backward."""
    fetching_forward: Floats
    """Of ZeRO-3, by how much more is there while the last block's weights are fetched, before they are used."""
    fetching_first: Floats
    """The same in its backward."""
    fetching_bottom: Floats
    """And in the first block's."""
    at_head: Floats
    """Weights gathered when the forward computes the loss."""
    at_loss: Floats
    """Weights gathered at the top of the loss."""
    after_loss: Floats
    """Of ZeRO-3, when the head's backward is over."""
    at_evaluated_head: Floats
    """The same, in an evaluation: FSDP2 has gathered the head for the batch before, and the last block's flat output then
    stays in the place of the head's."""
    evaluated_inside: Floats
    """Of ZeRO-3, in whichever block has most then."""
    fetching_evaluated: Floats
    resident: Floats
    """Of FSDP2, gathered from one forward without a backward to the next."""
    waiting: Floats
    """Of FSDP2, while a block's weights are copied out of their gather: all that is gathered for the blocks then."""
    at_bottom: Floats
    """Beside the unit's, while the bottom block's backward runs: nothing more is prefetched."""
    at_embedding: Floats
    """Once the blocks' backward is over."""

    def reducing(self, kept: Floats, of_one: Floats, blocks: Ints, bottom: Bools) -> Floats:
        """Gradients being reduced at the worst of the blocks whose backward begins with ``kept`` bytes of activations, of
        which ``of_one`` are one block's; gradients that stay arrive when a part of them is, or on the last rank at once."""
        scattered = self.units.worst(self.head_scattered, of_one, blocks, bottom)
        late = np.maximum(0.0, self.arriving - kept * self.arrives)
        return self.bucket + scattered + np.maximum(late, self.arriving_first)


def collectives(scenario: Scenario, c: Columns) -> Collectives:
    owned, element = partition(scenario, c.data_parallel), states.module_bytes(scenario)
    kept = np.where(c.uses("zero1", "zero2") & ~c.offloads_optimizer, owned.elements * element, 0.0)
    first = kept - (owned.elements - owned.elements_of_last) * element * np.where(c.accumulation > 1, 2.0, 1.0)
    root, unit, in_flight = _gathered(scenario, c)
    return Collectives(
        root=root,
        unit=unit,
        in_flight=in_flight,
        scattered=_of_a_block(scenario, c) * (2.0 * blocks_per_unit(scenario, c) - 1.0),
        units=_units(scenario, c),
        head_scattered=np.where(c.uses("fsdp") & scenario.is_full, _head(scenario, c), 0.0),
        bucket=_bucket(scenario, c),
        bucket_stays=np.where(c.uses("zero1") & (c.accumulation > 1), states.bucket_bytes(scenario), 0.0),
        partition=kept,
        held_reduced=_held_reduced(scenario, c),
        arriving=np.where(c.uses("zero2"), kept + kept_too_large(scenario, c) * element, 0.0),
        arrives=owned.arrives,
        arriving_first=np.where(c.uses("zero2") & (kept > 0), np.maximum(0.0, first), 0.0),
        pending=_pending(scenario, c, owned),
        copies=_copies(scenario, c, owned),
        **_late(scenario, c, root, unit, in_flight),
    )


def _gathered(scenario: Scenario, c: Columns) -> tuple[Floats, Floats, Floats]:
    """FSDP2: accelerate makes a unit of the final norm and the head, with the embedding where they are tied, which it keeps
    gathered from then on (utils/fsdp_utils.py, fsdp2_prepare_model); an untied embedding is one of its own. A block's
    gather is copied out of a flat output, which stays until the next one's (wait_for_unshard): in the backward it is the
    next block's, prefetched."""
    sizes = scenario.sizes
    root = 0.0 if sizes.lm_head else split.outside(scenario, c) * _outside_bytes(scenario)
    adapters = 0.0 if scenario.is_full else _adapters(scenario) / scenario.model.num_layers * scenario.compute_bytes
    block = unit_bytes(scenario) * split.block_share(scenario, c) * uneven.of_blocks(scenario, c) + adapters
    unit = block * blocks_per_unit(scenario, c)
    fsdp, several = c.uses("fsdp"), c.shard_degree > 1
    return (
        cast(Floats, np.where(fsdp, root, 0.0)),
        cast(Floats, np.where(fsdp, unit, 0.0)),
        cast(Floats, np.where(fsdp & several, unit, 0.0)),
    )


def _outside_bytes(scenario: Scenario) -> float:
    """Of a gathered weight outside the blocks under FSDP2."""
    return 4.0 if scenario.quantized else float(scenario.compute_bytes)


def _head(scenario: Scenario, c: Columns) -> Floats:
    """Bytes of an untied one."""
    return split.head(scenario, c) * _outside_bytes(scenario)


def _late(scenario: Scenario, c: Columns, root: Floats, unit: Floats, in_flight: Floats) -> dict[str, Floats]:
    """FSDP2's, from the loss on. Liger's backward of the loss is over at once: the top is where the last block's gather begins.
    An untied head's flat output is beside it until the forward ends, and an untied embedding is gathered again while the bottom
    block's backward runs. The gather before is let go of only when a unit's weights have been copied out of its own
    (wait_for_unshard holds a reference), the embedding's at the first block; the head stays after a forward, until a backward
    is over. ZeRO-3's: see fetches.py."""
    sizes, fsdp, several = scenario.sizes, c.uses("fsdp"), c.shard_degree > 1
    three, fused = fetched(scenario, c), scenario.each(c, lambda s: s.fused_loss)
    head = np.where(fsdp, _head(scenario, c), 0.0)
    embedded = np.where(fsdp & several, split.embedding(scenario, c) * _outside_bytes(scenario), 0.0)
    own = root + np.where(fsdp & (sizes.lm_head > 0), sizes.embedding * _outside_bytes(scenario), 0.0)
    last = np.where(several, own, root)
    return {
        "inside_forward": root + unit + in_flight + three["forward"],
        "inside_backward": root + unit + in_flight + three["first"],
        "fetching_forward": three["forward_top"] - three["forward"],
        "fetching_first": three["first_top"] - three["first"],
        "fetching_bottom": three["bottom_top"] - three["bottom"],
        "at_head": root + np.where(head > 0, np.where(several, 2 * head, head), in_flight) + three["head"],
        "at_evaluated_head": root + head + np.maximum(in_flight, np.where(several, head, 0.0)) + three["evaluated"],
        "evaluated_inside": three["evaluated_inside"],
        "fetching_evaluated": three["evaluated_top"] - three["evaluated_inside"],
        "resident": np.where(fsdp, root + head, 0.0),
        "waiting": np.where(fsdp, unit + in_flight + np.maximum(in_flight, embedded), 0.0),
        "at_loss": root + head + unit * fused + three["loss"],
        "after_loss": three["after_loss"],
        "at_bottom": last + three["bottom"],
        "at_embedding": own + three["embedding"],
    }


def unit_bytes(scenario: Scenario) -> float:
    """Of one block's weights, gathered."""
    per_parameter = states.quantized_bytes_per_parameter(scenario) if scenario.quantized else scenario.compute_bytes
    return scenario.sizes.block * float(per_parameter)


def _of_a_block(scenario: Scenario, c: Columns) -> Floats:
    """Bytes of a block's whole gradients, as foreach_reduce copies them."""
    trained = scenario.sizes.block if scenario.is_full else _adapters(scenario) / scenario.model.num_layers
    whole = trained * float(scenario.compute_bytes) * split.block_share(scenario, c)
    padded = uneven.of_blocks(scenario, c) if scenario.is_full else 1.0
    return cast(Floats, np.where(c.uses("fsdp"), whole * padded, 0.0))


def _units(scenario: Scenario, c: Columns) -> Units:
    share = np.where(gradient_terms.carries(c), 0.0, gradient_terms.of_one_block(scenario, c))
    return Units(
        layers=scenario.model.num_layers,
        blocks=blocks_per_unit(scenario, c),
        gradients=_of_a_block(scenario, c),
        share=np.where(c.uses("fsdp"), share, 0.0),
    )


def _held_reduced(scenario: Scenario, c: Columns) -> Floats:
    """foreach_reduce keeps what it all-reduced (AllReduceState) until finalize_backward. Where that has the weights' dtype,
    and no gradient is there yet, it is the gradient itself."""
    casts = float(scenario.compute_bytes) != float(scenario.trainable_bytes)
    apart = (c.replicate_degree > 1) & (casts | (c.accumulation > 1))
    share = scenario.trainable * float(scenario.compute_bytes) / (c.tensor_parallel * c.gradient_shards)
    return cast(Floats, np.where(c.uses("fsdp") & apart, share, 0.0))


def _adapters(scenario: Scenario) -> float:
    return float(scenario.trainable - scenario.sizes.saved)


def _bucket(scenario: Scenario, c: Columns) -> Floats:
    """ZeRO-1 and 2 make it with the first gradient of each backward, and let go of it at its end (setup_buckets): ZeRO-1
    of a step's last one."""
    return cast(Floats, np.where(c.uses("zero1", "zero2"), states.bucket_bytes(scenario), 0.0))


def _pending(scenario: Scenario, c: Columns, owned: Partition) -> Floats:
    """reduce_independent_p_g_buckets_and_remove_grads"""
    large = owned.second > reduce_bucket_elements(scenario.model.hidden_size)
    size = owned.second * states.module_bytes(scenario) if large else 0.0
    return cast(Floats, np.where(c.uses("zero2"), size, 0.0))


def subgroup_elements(scenario: Scenario, c: Columns) -> Floats:
    """That DeepSpeed updates together: a rank's share, which ZeRO-3 takes in parts (_create_fp16_sub_groups)."""
    share = scenario.trainable / c.optimizer_shards
    return cast(Floats, np.where(c.uses("zero3"), np.minimum(share, LIVE_ELEMENTS), share))


def _copies(scenario: Scenario, c: Columns, owned: Partition) -> Floats:
    """step: norms are taken of fp64 copies, one gradient at a time; then the share is flattened, and that copied to fp32."""
    three, share = c.uses("zero3"), subgroup_elements(scenario, c)
    fewer = (owned.elements - owned.elements_of_last) * states.module_bytes(scenario) / 8.0  # that the last one keeps
    of_last = np.where(c.uses("zero2"), owned.largest_part_of_last - fewer, 0.0)
    of_any = np.maximum(owned.largest_part, of_last)
    part = np.where(three, owned.largest / c.data_parallel, of_any)
    needed = np.maximum(share * (states.module_bytes(scenario) + 4.0), part * 8.0)
    fused = reads_head(scenario, c)  # which is let go of only now
    head = scenario.sizes.vocabulary_matrix * states.module_bytes(scenario)
    arriving = np.where(fused & three & (c.data_parallel > 1), head, 0.0)
    own = np.where(c.deepspeed & ~c.offloads_optimizer, needed, 0.0)
    return cast(Floats, np.maximum(own, arriving))
