"""Checkpoints are data: nothing in one is executed, whoever wrote it and whatever its manifest says.

transformers loads its own files with ``weights_only``. DeepSpeed says ``weights_only=False`` (torch_checkpoint_engine.py,
ds_to_universal.py, stage3.py), and so does DCP for what is no tensor (default_planner.py): torch's own switch
TORCH_FORCE_WEIGHTS_ONLY_LOAD overrides both. DCP reads its index with the bare pickle module (filesystem.py:
``read_metadata``), which gets an unpickler that knows that index's classes and no others.
"""

from __future__ import annotations

import os
import pickle
from pathlib import PurePosixPath
from typing import Any, Final

import torch
from torch.distributed.checkpoint import filesystem, metadata

INDEX_CLASSES: Final = {
    (c.__module__, c.__name__): c
    for c in (
        metadata.BytesStorageMetadata,
        metadata.ChunkStorageMetadata,
        metadata.Metadata,
        metadata.MetadataIndex,
        metadata.StorageMeta,
        metadata.TensorProperties,
        metadata.TensorStorageMetadata,
        metadata._MEM_FORMAT_ENCODING,
        filesystem._StorageInfo,
        torch.Size,
    )
}
PATHS: Final = ("pathlib", "pathlib._local")
"""Where the index was written, which nothing reads; Python 3.13 has another module for it."""


class IndexUnpickler(pickle.Unpickler):
    """Knows the classes of DCP's index, torch's dtypes and layouts, and nothing that does anything."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in INDEX_CLASSES:
            return INDEX_CLASSES[module, name]
        if module in PATHS and name == "PosixPath":
            return PurePosixPath
        if (module, name) == ("torch.serialization", "_get_layout"):
            return torch.serialization._get_layout
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint's index")


class _Pickle:
    """The pickle module as filesystem.py uses it."""

    dump = staticmethod(pickle.dump)
    dumps = staticmethod(pickle.dumps)

    @staticmethod
    def load(file: Any) -> Any:
        return IndexUnpickler(file).load()


def load_only_data(strategy: str) -> None:
    """For the rest of this process. Before any library loads anything."""
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
    filesystem.pickle = _Pickle  # type: ignore[assignment,attr-defined]
    if strategy.startswith("zero"):
        from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum
        from deepspeed.utils.tensor_fragment import fragment_address

        torch.serialization.add_safe_globals([DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address])
