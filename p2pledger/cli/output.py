"""How commands speak: data on stdout in the form that was asked for, everything else on stderr.

A command gets a `Session` and hands it rows; it never prints by itself.
"""

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from p2pledger.node.home import Home, Layout

FORMS = ("table", "json", "jsonl")
HOME = click.option("--home", "home_flag", metavar="DIR", help="The member's home. [env: P2PLEDGER_HOME]")
ORGANISATION_KEYS = click.option(
    "--organisation-keys",
    "organisation_keys_flag",
    metavar="DIR",
    help="Where account.key and box.key lie. [default: in the home; env: P2PLEDGER_ORGANISATION_KEYS]",
)


@dataclass(frozen=True, slots=True)
class Session:
    """What every command needs to know: where the member's home is and how to show data."""

    home_flag: str | None
    form: str
    organisation_keys_flag: str | None = None

    @property
    def home(self) -> Path:
        """--home > P2PLEDGER_HOME > XDG data folder."""
        from p2pledger.node.home import home_path

        return home_path(self.home_flag, os.environ)

    @property
    def organisation_keys(self) -> Path | None:
        """--organisation-keys > P2PLEDGER_ORGANISATION_KEYS; None: they lie in the home."""
        folder = self.organisation_keys_flag or os.environ.get("P2PLEDGER_ORGANISATION_KEYS")
        return Path(folder) if folder else None

    def layout(self) -> "Layout":
        """Where things lie in the home; raises ConfigError where there is none."""
        from p2pledger.node.home import Layout, existing_home

        return Layout(existing_home(self.home), self.organisation_keys)

    def load_home(self) -> "Home":
        """The home, everything in it checked; raises ConfigError."""
        from p2pledger.node.home import Home

        return Home.load(self.home, os.environ, organisation_keys=self.organisation_keys)

    def show(self, record: Mapping[str, Any]) -> None:
        """One record."""
        if self.form == "table":
            width = max((len(key) for key in record), default=0)
            for key, value in record.items():
                click.echo(f"{key:<{width}}  {_cell(value)}".rstrip())
        else:
            click.echo(_json(record, indent=2 if self.form == "json" else None))

    def show_all(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
        """Many records with the same columns; `json` is one list, `jsonl` one object a line."""
        if self.form == "table":
            _table(rows, columns)
        elif self.form == "json":
            click.echo(_json([dict(row) for row in rows], indent=2))
        else:
            for row in rows:
                click.echo(_json(row, indent=None))

    def show_line(self, row: Mapping[str, Any], columns: Sequence[str]) -> None:
        """One row of which nobody knows how many follow: written at once, `json` as `jsonl`."""
        if self.form == "table":
            click.echo("  ".join(_cell(row.get(column)) for column in columns))
        else:
            click.echo(_json(row, indent=None))
        sys.stdout.flush()


def say(message: str) -> None:
    """A message for the person at the terminal, on stderr."""
    click.echo(message, err=True)


def with_session(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options --home, --organisation-keys and --output and, as its first argument, their Session.

    They may also stand before the noun: `p2pledger --output json status`.
    """

    @HOME
    @ORGANISATION_KEYS
    @click.option("--output", "form", type=click.Choice(FORMS), help="Form of the data on stdout. [default: table]")
    @click.pass_context
    @functools.wraps(command)
    def wrapped(
        context: click.Context,
        /,
        *args: Any,
        home_flag: str | None,
        organisation_keys_flag: str | None,
        form: str | None,
        **options: Any,
    ) -> Any:
        outer = context.find_object(Session) or Session(None, "table")
        office = organisation_keys_flag or outer.organisation_keys_flag
        return command(Session(home_flag or outer.home_flag, form or outer.form, office), *args, **options)

    return wrapped


def _json(value: Any, indent: int | None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def _cell(value: Any) -> str:
    """A value on one line of a terminal: no control character of a name reaches it."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case bytes():
            return value.hex()
        case list() | tuple():
            return ", ".join(_cell(item) for item in value)
        case _:
            text = str(value)
            return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        _coloured(cells, columns)
        return
    widths = [max([len(column), *(len(line[i]) for line in cells)]) for i, column in enumerate(columns)]
    for line in [list(columns), *cells]:
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _coloured(cells: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in cells:
        table.add_row(*(Text(cell) for cell in line))
    Console().print(table)
