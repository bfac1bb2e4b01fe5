"""``python -m axoc_runtime.exports RUN_DIR --formats a,b [--quantization q]``: of any finished run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from axoc_runtime.errors import EXIT_EXPORT, EXIT_INTERRUPTED, RuntimeFailure
from axoc_runtime.exports import stopping


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m axoc_runtime.exports", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--formats", required=True)
    parser.add_argument("--quantization", default="none")
    given = parser.parse_args(arguments)
    stopping.obey_signals()
    formats = [name.strip() for name in given.formats.split(",") if name.strip()]
    try:
        from axoc_runtime.exports.run import export

        if not formats:
            raise RuntimeFailure("--formats names none", 1, "e.g. --formats gguf,onnx")
        export(given.run.resolve(), formats, given.quantization)
    except RuntimeFailure as failure:
        print(f"axoc: {failure.render()}", file=sys.stderr)
        return failure.exit_code
    except ModuleNotFoundError as error:
        print(f"axoc: not installed: {error.name}", file=sys.stderr)
        return 11
    except KeyboardInterrupt:
        print("axoc: stopped; what was whole before is in exports/, the rest is not", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:
        print(f"axoc: {_told(given.run, error)}", file=sys.stderr)
        return EXIT_EXPORT
    except Exception as error:
        print(f"axoc: export failed: {type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_EXPORT
    return 0


def _told(run: Path, error: OSError) -> str:
    from axoc_runtime.failure import disk

    if disk.full(error):
        return f"the disk is full: {run.resolve()}\n  fix: free some, and export again"
    return f"export failed: {error.filename or run}: {error.strerror or error}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
