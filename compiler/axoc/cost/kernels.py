"""Which seconds of kernels a scenario's time is counted with: a profile's where there is one, else the datasheet's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, cast

from axoc.cost.columns import Floats
from axoc.cost.datasheet import Datasheet
from axoc.cost.measured import Measured
from axoc.cost.scenario import Scenario
from axoc.cost.tape import Size
from axoc.facts.profile import Pace, Profile, profile_for


class Kernels(Protocol):
    """Device seconds of one kernel each. ``bytes_``: of an element as the kernel reads it."""

    def matmul(self, layout: str, m: Size, n: Size, k: Size, bytes_: float) -> Floats:
        """(m, k) times (k, n). ``layout``: nt of a linear layer's forward, nn of its input's gradient, tn its weight's."""

    def grouped(self, rows: Size, experts: float, inner: Size, outer: Size, role: str, bytes_: float) -> Floats:
        """All experts' products at once. ``role``: forward | input_gradient | weight_gradient"""

    def attention(
        self,
        batch: Size,
        heads: Size,
        kv_heads: Size,
        head_dim: float,
        seq: Size,
        *,
        masked: bool,
        backward: bool,
        fused: bool,
        by_document: bool = False,
        flash_4: bool = False,
    ) -> Floats:
        """Causal. ``fused``: False where torch takes its plain implementation, with scores in full and in fp32.
        ``by_document``: flash attention's own kernels, which are told where documents begin; else what torch picks.
        ``flash_4``: of those, its fourth version's."""

    def pointwise(self, kernel: str, elements: Size, bytes_: float, width: Size = 0.0) -> Floats:
        """Bound by memory. ``width``: of the rows it goes along."""

    def moved(self, num_bytes: Size) -> Floats:
        """Bound by memory, known by its bytes alone."""

    def liger(self, kernel: str, rows: Size, width: Size, bytes_: float, *, passes: float, backward: bool) -> Floats:
        """One of Liger's, which reads and writes so many tensors of these rows."""

    def dequantize(self, elements: Size, *, nested: bool) -> Floats:
        """Four-bit weights to the compute dtype. ``nested``: their scales are quantized too."""

    def embedding(self, tokens: Size, width: float, vocabulary: float, bytes_: float, *, backward: bool) -> Floats:
        """A lookup, or the table's gradient."""

    def fused_loss(self, tokens: Size, hidden: float, vocabulary: float, *, trained: bool) -> Floats | None:
        """Liger's, in bf16, with both gradients or the input's alone; None where it was not measured as a whole."""

    def optimizer(self, name: str, elements: Size, tensors: float, bytes_: float) -> Floats:
        """A step, or clipping (``grad_norm``)."""


def kernels_of(scenario: Scenario) -> Kernels:
    accelerator = scenario.cluster.accelerator
    return _kernels(
        profile_of(scenario),
        dense_rate(scenario),
        accelerator.dense_flops_per_second["float32"],
        accelerator.memory_bandwidth_bytes_per_second,
        scenario.on_cpu,
        accelerator.compute_capability >= (9, 0),
        accelerator.architecture,
        accelerator.dense_flops_per_second.get("fp8"),
    )


@lru_cache(maxsize=32)
def _kernels(
    profile: Profile | None,
    rate: float,
    float32_rate: float,
    bytes_per_second: float,
    cpu: bool,
    recent: bool,
    architecture: str,
    float8_rate: float | None,
) -> Kernels:
    """One of each, so that what was looked up once is remembered."""
    datasheet = Datasheet(
        flops_per_second=rate,
        float32_flops_per_second=float32_rate,
        bytes_per_second=bytes_per_second,
        cpu=cpu,
        recent=recent,
        architecture=architecture,
        float8_flops_per_second=float8_rate,
    )
    measured: Kernels = datasheet if profile is None or not profile.tables else Measured(profile, datasheet)
    pace = profile.pace.device if profile is not None else 1.0
    return measured if pace == 1.0 else cast(Kernels, Paced(measured, pace))


@dataclass(frozen=True)
class Paced:
    """Kernels of a machine that takes ``pace`` times as long as was measured elsewhere."""

    kernels: Kernels
    pace: float

    def __getattr__(self, name: str) -> Callable[..., Floats | None]:
        kernel = getattr(self.kernels, name)

        def paced(*sizes: Size, **how: bool) -> Floats | None:
            found = kernel(*sizes, **how)
            return None if found is None else found * self.pace  # None: it was not measured

        return paced


def profile_of(scenario: Scenario) -> Profile | None:
    return profile_for(scenario.cluster)


def pace_of(scenario: Scenario) -> Pace:
    profile = profile_of(scenario)
    return Pace() if profile is None else profile.pace


def dense_rate(scenario: Scenario) -> float:
    """Datasheet FLOP/s for the dtype the products run in. Under fp8 that of the rest, as which MFU is counted everywhere."""
    rates = scenario.cluster.accelerator.dense_flops_per_second
    dtype = {"bf16": "bfloat16", "fp16": "float16", "fp8": "bfloat16"}.get(scenario.mixed_precision, scenario.dtype)
    return rates.get(dtype) or rates["float32"]
