"""Libraries that speak while they are imported: this comes before them, and imports none."""

from __future__ import annotations

import logging
import warnings

from axoc_runtime.job import Job

TALKATIVE = (
    "bitsandbytes",
    "liger_kernel",  # backends for other devices that are not there
    "accelerate.accelerator",  # that DeepSpeed's accumulation is used and not its own, which is meant
)


def hush(job: Job) -> None:
    """Only what is wrong is said, unless the job asks for more."""
    if job.logging_level.upper() == "DEBUG":
        return
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
