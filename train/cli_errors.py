"""What the scripts here do with an error that a user can mend."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import click

from vnprep.errors import VnprepError

P = ParamSpec("P")
T = TypeVar("T")


def show_errors(command: Callable[P, T]) -> Callable[P, T]:
    """Print a ``VnprepError`` as ``error: …`` on stderr and exit 1; exit 130 on Ctrl-C."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except VnprepError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)

    return wrapped
