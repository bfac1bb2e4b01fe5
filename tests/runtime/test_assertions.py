"""What is asserted before the first step: dtypes of what is trained, as the planner counts them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from axoc_runtime.assertions import _dtypes

from .jobs import LORA, make_job


class Trained:
    """What the assertions look at: parameters by name."""

    def __init__(self, **dtypes: torch.dtype) -> None:
        self.model = torch.nn.Module()
        for name, dtype in dtypes.items():
            self.model.register_parameter(name, torch.nn.Parameter(torch.zeros(1, dtype=dtype)))


@pytest.mark.parametrize("whole", ["bfloat16", "float32"])
def test_what_is_trained_whole_beside_an_adapter_is_of_the_models_dtype(tmp_path: Path, whole: str) -> None:
    """As the planner counts it and PEFT copies it; the adapter itself is in float32, and neither may be another."""
    found = Trained(lora_A=torch.float32, head_modules_to_save=getattr(torch, whole))
    job = make_job(tmp_path, model__dtype="bfloat16", adapter=LORA | {"modules_to_save": ["lm_head"]})
    checked = {what: (planned, real) for what, planned, real in _dtypes(job, found)}
    assert checked["dtype of trained weights"] == (["float32"], ["float32"])
    assert checked["dtype of modules that are trained whole"] == (["bfloat16"], [whole])
    stored = {"method": "nf4", "double_quantization": True, "options": {}}
    raised = make_job(tmp_path, model__dtype="bfloat16", model__quantization=stored, adapter=LORA)
    assert {w: p for w, p, _ in _dtypes(raised, found)}["dtype of modules that are trained whole"] == ["float32"]
