"""Tells the story in a terminal: steps, facts that were checked, tables; plain text where there is no terminal."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from p2pledger.client.vault import Progress as Report
from p2pledger.primitives.errors import P2PLedgerError


class DemoFailed(P2PLedgerError):
    """Something that the demonstration promises did not hold."""


class Narrator:
    """One console; every promise is checked before it is printed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self.checked = 0

    def step(self, number: int, title: str) -> None:
        """A new part of the story."""
        elapsed = time.monotonic() - self._started
        self._console.print()
        self._console.rule(f"[bold]{number}. {title}[/]  ({elapsed:.1f} s)", align="left")

    def say(self, text: str) -> None:
        """What is happening."""
        self._console.print(text, highlight=False)

    def check(self, promise: str, holds: bool, found: str = "") -> None:
        """A fact that must be true; raises DemoFailed if it is not."""
        shown = f" — {found}" if found else ""
        if not holds:
            raise DemoFailed(f"{promise}{shown}")
        self.checked += 1
        self._console.print(f"  [green]✓[/] {promise}{shown}", highlight=False)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Facts side by side."""
        table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(str(cell) for cell in row))
        self._console.print(table)

    @contextmanager
    def progress(self, title: str) -> Iterator[Report]:
        """A bar while something long goes on; without a terminal, nothing."""
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, disable=not self._console.is_terminal) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
