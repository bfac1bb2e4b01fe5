"""``python -m axoc_runtime.torchrun ...``: torchrun, with a line for each rank that failed in place of its traceback."""

from __future__ import annotations

import logging
import os
import signal
import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main


def told(rank: int, exit_code: int) -> str:
    """What became of a rank: negative codes are signals."""
    if exit_code >= 0:
        return f"rank {rank} ended with code {exit_code}"
    name = signal.Signals(-exit_code).name
    hint = ": by hand, or by the kernel because host memory ran out" if name == "SIGKILL" else ""
    return f"rank {rank} was killed by {name}{hint}"


def run() -> int:
    """torchrun's own exit code, 1 where a rank failed."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun would, with a banner
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        main()
    except ChildFailedError as error:
        first = min(error.failures.items(), key=lambda item: item[1].timestamp)
        print(f"axoc: {told(first[0], first[1].exitcode)}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run())
