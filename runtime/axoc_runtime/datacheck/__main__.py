"""``python -m axoc_runtime.datacheck DATA.json [--report FILE] [--json]``: exit 1 where a row or a file cannot be used."""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from pathlib import Path

from axoc_runtime.datacheck.job import read_data_job
from axoc_runtime.errors import EXIT_DATA, EXIT_ENVIRONMENT, RuntimeFailure


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m axoc_runtime.datacheck")
    parser.add_argument("job", type=Path)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        from axoc_runtime.datacheck.check import run

        return run(read_data_job(options.job), options.report, as_json=options.json)
    except RuntimeFailure as failure:
        print(f"axoc: {failure.render()}", file=sys.stderr)
        return failure.exit_code
    except ModuleNotFoundError as error:
        print(f"axoc: not installed: {error.name}", file=sys.stderr)
        return EXIT_ENVIRONMENT
    except OSError as error:
        print(f"axoc: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return EXIT_DATA
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # whatever a library raises: the trace goes to a file, a line to the user
        with tempfile.NamedTemporaryFile("w", prefix="axoc-data-check-", suffix=".log", delete=False) as log:
            log.write("".join(traceback.format_exception(error)))
        print(f"axoc: the check failed: {type(error).__name__}: {error}\n  see: {log.name}", file=sys.stderr)
        return EXIT_DATA


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
