"""A pickle in a checkpoint is read as data or refused; what it names is not run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from axoc_runtime.checkpoint.safe import load_only_data
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint import filesystem

pytestmark = pytest.mark.slow  # torch and DeepSpeed take their time to import


class Malicious:
    """Writes a file where it is unpickled as Python would."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


@pytest.fixture
def proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Not there unless something was run; what the test switches on is off again afterwards."""
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")
    monkeypatch.setattr(filesystem, "pickle", pickle)
    return tmp_path / "proof"


def test_the_bait_works_where_nothing_protects(tmp_path: Path, proof: Path) -> None:
    torch.save({"step": Malicious(proof)}, tmp_path / "optimizer.pt")
    torch.load(tmp_path / "optimizer.pt", weights_only=False)
    assert proof.exists()


def test_torch_files_whatever_a_library_asks_for(tmp_path: Path, proof: Path) -> None:
    torch.save({"step": Malicious(proof)}, tmp_path / "optimizer.pt")
    load_only_data("ddp")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "optimizer.pt", weights_only=False)
    assert not proof.exists()


def test_deepspeeds_own_loader(tmp_path: Path, proof: Path) -> None:
    from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

    torch.save({"optimizer_state_dict": Malicious(proof)}, tmp_path / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    load_only_data("zero2")
    with pytest.raises(pickle.UnpicklingError):
        TorchCheckpointEngine().load(str(tmp_path / "zero_pp_rank_0_mp_rank_00_optim_states.pt"))
    assert not proof.exists()


def test_the_index_of_a_sharded_checkpoint(tmp_path: Path, proof: Path) -> None:
    dcp.save({"a": torch.ones(3)}, checkpoint_id=tmp_path / "shards", no_dist=True)
    load_only_data("fsdp")
    state = {"a": torch.zeros(3)}
    dcp.load(state, checkpoint_id=tmp_path / "shards", no_dist=True)
    assert state["a"].tolist() == [1, 1, 1]
    (tmp_path / "shards" / ".metadata").write_bytes(pickle.dumps(Malicious(proof)))
    with pytest.raises(dcp.CheckpointException):
        dcp.load(state, checkpoint_id=tmp_path / "shards", no_dist=True)
    assert not proof.exists()


def test_an_object_in_a_sharded_checkpoint(tmp_path: Path, proof: Path) -> None:
    dcp.save({"a": Malicious(proof)}, checkpoint_id=tmp_path / "shards", no_dist=True)
    proof.rmdir() if proof.exists() else None
    load_only_data("fsdp")
    with pytest.raises(dcp.CheckpointException):
        dcp.load({"a": None}, checkpoint_id=tmp_path / "shards", no_dist=True)
    assert not proof.exists()
