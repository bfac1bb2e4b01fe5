"""``python -m axoc_runtime.quantize.profile --model M --quant-methods a,b --output-dir D``: methods beside each other.

A process for each stage of each method; what is done is kept in D/measurements and not done again; an error is a row.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from axoc_runtime.errors import EXIT_EXPORT, EXIT_INPUTS, RuntimeFailure


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m axoc_runtime.quantize.profile", description=__doc__)
    made.add_argument("--model", required=True, help="a folder, or a hub id")
    made.add_argument("--model-name", help="how the recommended spec names it; as --model otherwise")
    made.add_argument("--quant-methods", default="awq,gptq,gguf,nf4,fp8,int8")
    made.add_argument("--output-dir", type=Path, required=True)
    made.add_argument("--gpu-count", type=int, default=1, help="0: the CPU; also where there is no GPU")
    made.add_argument("--data", type=Path, help="text, or JSON rows; every other document is held out")
    made.add_argument("--windows", type=int, default=32)
    made.add_argument("--window-tokens", type=int, default=256)
    made.add_argument("--calibration-rows", type=int, help="128 on a GPU, 8 on a CPU")
    made.add_argument("--calibration-tokens", type=int, help="of a row; 512 on a GPU, 256 on a CPU")
    made.add_argument("--method-seconds", type=float, help="of measuring; 60 on a CPU, no limit on a GPU")
    made.add_argument("--max-loss", type=float, default=0.05, help="of the perplexity, for what is recommended")
    made.add_argument("--keep-models", action="store_true", help="leave the quantized folders in OUTPUT_DIR/models")
    return made


def main(arguments: list[str]) -> int:
    given = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the worker too
    try:
        from axoc_runtime.quantize.run import run

        return run(given)
    except RuntimeFailure as failure:
        print(f"axoc: {failure.render()}", file=sys.stderr)
        return failure.exit_code
    except ModuleNotFoundError as error:
        print(f"axoc: not installed: {error.name}", file=sys.stderr)
        return 11
    except OSError as error:
        print(f"axoc: {error.filename or given.output_dir}: {error.strerror or error}", file=sys.stderr)
        return EXIT_INPUTS
    except KeyboardInterrupt:
        print("axoc: stopped; the same command goes on where this one was", file=sys.stderr)
        return 130
    except Exception as error:
        print(f"axoc: quant-profile failed: {type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_EXPORT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
