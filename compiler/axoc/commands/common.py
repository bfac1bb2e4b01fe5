"""What the commands share: errors without a traceback, exit codes, colour, and how "no plan fits" is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

import click

from axoc.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")
EXIT_DRIFT: Final = 3
EXIT_NO_PLAN: Final = 4
EXIT_INTERRUPTED: Final = 130


def user_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turns what a user can act on into a message and an exit code: no traceback reaches a user."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except UserError as error:
            click.echo(error.render(), err=True)
            sys.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            click.echo("\naxoc: interrupted", err=True)
            sys.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            sys.exit(0)

    return run


def show_no_plan(no_plan: Any, format_: str) -> NoReturn:
    """JSON goes to standard output; the text, which is a refusal, to standard error."""
    from axoc.emit.plan_json import no_plan_dict
    from axoc.emit.terminal import render_no_plan

    if format_ == "json":
        click.echo(json.dumps(no_plan_dict(no_plan), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        click.echo(render_no_plan(no_plan, color=use_color()), nl=False, err=True)
    sys.exit(EXIT_NO_PLAN)


def use_color() -> bool:
    import os

    return sys.stdout.isatty() and "NO_COLOR" not in os.environ
