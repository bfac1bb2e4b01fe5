"""``python -m axoc_runtime.calibrate --out PROFILE.json [--check] [--device cuda|cpu] [--seconds N] [--only TABLE,…]``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from axoc_runtime.errors import EXIT_ENVIRONMENT, EXIT_INPUTS, RuntimeFailure

os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m axoc_runtime.calibrate", description=__doc__)
    made.add_argument("--out", type=Path, required=True, help="the profile to write")
    made.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a trial at small sizes")
    made.add_argument("--seconds", type=float, default=165.0, help="start no measurement after so long [165]")
    made.add_argument("--only", default="", metavar="TABLES", help="comma-separated names of tables")
    made.add_argument("--check", action="store_true", help="also time pieces of a step beside their operations' sum")
    made.add_argument("--quiet", action="store_true", help="print no progress")
    return made


def main(arguments: list[str]) -> int:
    options = parser().parse_args(arguments)
    try:
        if not options.out.resolve().parent.is_dir():
            raise RuntimeFailure(f"{options.out}: its folder does not exist", EXIT_INPUTS, "make it, or name another")
        _write(options)
    except RuntimeFailure as failure:
        print(f"axoc: {failure.render()}", file=sys.stderr)
        return failure.exit_code
    return 0


def _write(options: argparse.Namespace) -> None:
    try:
        import torch
    except ImportError as error:
        fix = "use the Python of a bundle's environment"
        raise RuntimeFailure(f"this Python has no torch: {error}", EXIT_ENVIRONMENT, fix) from None
    if options.device == "cuda" and not torch.cuda.is_available():
        fix = "run it where the GPU is, or try it with --device cpu"
        raise RuntimeFailure("torch sees no GPU here, so there is nothing to calibrate", EXIT_ENVIRONMENT, fix)
    from axoc_runtime.calibrate import profile

    only = tuple(name for name in options.only.split(",") if name)
    made = profile.make(options.device, options.seconds, only=only, check=options.check, quiet=options.quiet)
    options.out.write_text(profile.dumps(made), encoding="utf-8")
    if not options.quiet:
        print(profile.closing(made, options.out), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
