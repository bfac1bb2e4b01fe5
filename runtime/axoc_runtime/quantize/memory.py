"""Peak memory of this process: of its GPUs, or of the host beyond what Python and its libraries took before."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

STATUS = Path("/proc/self/status")
KIB = 1024


class Peak:
    """Begins before the model is loaded."""

    def __init__(self, on_gpu: bool) -> None:
        self.on_gpu = on_gpu
        self.before = 0 if on_gpu else _kib("VmRSS")
        self.again()

    def again(self) -> None:
        """From here on. Where the host's own peak cannot be set back, that of loading is part of it."""
        if self.on_gpu:
            import torch

            # the allocator knows no device before it
            torch.cuda.init()  # type: ignore[no-untyped-call]
            for index in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(index)
            return
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def bytes(self) -> int:
        if self.on_gpu:
            import torch

            return sum(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count()))
        return max(0, _kib("VmHWM") - self.before) * KIB


def _kib(name: str) -> int:
    """Of /proc/self/status; elsewhere what the resource module says."""
    with suppress(OSError):
        for line in STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
