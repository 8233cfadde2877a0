"""What a run says while it runs: bars on a terminal, a line for each step elsewhere. Always on stderr."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Show:
    """One console."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._began = time.monotonic()

    def step(self, text: str) -> None:
        """Something begins, so many seconds after the run."""
        line = f"{time.monotonic() - self._began:6.0f} s  {text}"
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, text: str, total: float) -> Iterator[Callable[[float], None]]:
        """How far something is: call the result with what is done. A single line where nobody watches."""
        if not self._console.is_terminal:
            self.step(f"  {text}")
            yield lambda done: None
            return
        columns = TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(text, total=total)
            yield lambda done: progress.update(task, completed=done)
