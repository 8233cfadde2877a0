"""The options that say which part of a chart is meant, beside compartments; for consents and for requests alike."""

import functools
from collections.abc import Callable
from typing import Any

import click

from p2pledger.cli.values import Hex, MonthsValue


def scope_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options; it gets them as one `Scope`, named `scope`."""

    @click.option("--class", "classes", type=Hex(16), multiple=True, metavar="HANDLE", help="A class; repeat.")
    @click.option("--months", type=MonthsValue(), metavar="FROM..TO", help="Like 2022-01..2022-12.")
    @click.option("--author", "authors", type=Hex(16), multiple=True, metavar="HANDLE", help="Of an author; repeat.")
    @click.option("--encounter", "encounters", type=Hex(16), multiple=True, metavar="HANDLE", help="Of one; repeat.")
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        classes: tuple[bytes, ...],
        months: tuple[int, int] | None,
        authors: tuple[bytes, ...],
        encounters: tuple[bytes, ...],
        **options: Any,
    ) -> Any:
        from p2pledger.client.health import Scope

        named = (tuple(sorted(set(handles))) for handles in (authors, encounters))
        scope = Scope(tuple(sorted(set(classes))), None, months, (), *named)
        return command(*args, scope=scope, **options)

    return wrapped
