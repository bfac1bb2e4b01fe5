"""Work on a checkpoint's files that all ranks share: each hashes its own, all learn the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import torch.distributed as dist

from axoc_runtime.checkpoint.manifest import FileDigest, Manifest, damage, digests, files_of
from axoc_runtime.strategies import rank, world_size

RANK_IN_NAME: Final = re.compile(r"(?:^rng_state_|^__|zero_pp_rank_)(\d+)(?:\.pth|_\d+\.distcp|_mp_rank_)")
"""transformers' random states, torch's DCP shards, DeepSpeed's partitions. What names no rank, rank 0 has written."""


def writer(path: str, ranks: int) -> int:
    """The rank that wrote this file: it lies in its node's page cache, so reading it there costs no network."""
    named = RANK_IN_NAME.search(path.rpartition("/")[2])
    return int(named[1]) % ranks if named else 0


def digest_together(folder: Path) -> tuple[dict[str, FileDigest], list[str]]:
    """On every rank: all files with their digests, on disk; and those that some rank sees and rank 0 does not."""
    mine = [p for p in files_of(folder) if writer(p, world_size()) == rank()]
    found: dict[str, FileDigest] = {}
    for part in gathered(digests(folder, mine, durable=True)):
        found |= part
    unseen = [p for p in sorted(found) if rank() == 0 and not (folder / p).is_file()]
    return found, [p for part in gathered(unseen) for p in part]


def damage_together(folder: Path, manifest: Manifest) -> list[str]:
    """On every rank the same lines, one a damaged file. The large files are spread over the ranks first."""
    by_size = sorted(manifest.files, key=lambda p: (-manifest.files[p].bytes, p))
    mine = by_size[rank() :: world_size()]
    return sorted(line for part in gathered(damage(folder, manifest, mine)) for line in part)


def gathered(value: Any) -> list[Any]:
    """One of each rank."""
    if not dist.is_initialized():
        return [value]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found
