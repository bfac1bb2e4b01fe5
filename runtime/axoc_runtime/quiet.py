"""Libraries that speak while they are imported: this comes before them, and imports none."""

from __future__ import annotations

import logging
import warnings

from axoc_runtime.job import Job


def hush(job: Job) -> None:
    """Only what is wrong is said, unless the job asks for more."""
    if job.logging_level.upper() == "DEBUG":
        return
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
