"""`preflight`: is this what the plan was made for, on every host? Every difference at once, before anything is paid for."""

from axoc_runtime.preflight.memory import host_memory_available_bytes
from axoc_runtime.preflight.packages import packages
from axoc_runtime.preflight.run import run

__all__ = ["host_memory_available_bytes", "packages", "run"]
