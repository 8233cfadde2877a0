"""Runs load processes over a plan: starts them, says when, samples meanwhile, collects what they wrote down."""

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from bench.book import ClientPlan, ClientReport, Row, read_rows, write_plan
from bench.lanes import end
from bench.procfs import confine
from bench.town import Planned
from p2pledger.primitives.errors import Unavailable

SAMPLE_S = 0.5
START_IN_S = 0.5
Due = tuple[int, Planned, float]
"""A transaction with its number in the point and its due time."""


@dataclass
class Loaded:
    """What came of one load; times of rows are seconds after `start`."""

    start: float
    rows: list[Row]
    reports: list[ClientReport]
    elapsed_s: float


@dataclass
class _Process:
    process: trio.Process
    plan: ClientPlan
    errors: Path
    ready: trio.Event = field(default_factory=trio.Event)
    done: int = 0
    report: ClientReport | None = None

    async def listen(self) -> None:
        """Take in its lines until it ends; raises Unavailable unless it ends well."""
        rest = b""
        assert self.process.stdout is not None
        while data := await self.process.stdout.receive_some(65_536):
            *lines, rest = (rest + bytes(data)).split(b"\n")
            for line in lines:
                self._take(json.loads(line))
        await self.process.wait()
        if self.process.returncode != 0 or self.report is None:
            words = self.errors.read_text(errors="replace")[-2_000:]
            raise Unavailable(f"load process {self.plan.index} ended with {self.process.returncode}:\n{words}")

    def _take(self, line: dict[str, object]) -> None:
        if "ready" in line:
            self.ready.set()
        elif "report" in line:
            self.report = ClientReport.from_json(line["report"])  # type: ignore[arg-type]
        else:
            self.done = int(line["done"])  # type: ignore[call-overload]


async def run_load(
    folder: Path,
    shares: Sequence[tuple[ClientPlan, Sequence[Due]]],
    *,
    cores: tuple[int, ...] = (),
    progress: Callable[[int], None] = lambda done: None,
    meanwhile: Sequence[Callable[[float], Awaitable[None]]] = (),
) -> Loaded:
    """Run the plans, each in a process. `meanwhile` are called with the start and cancelled at the end.

    Raises Unavailable when a process fails. Whatever happens, no process outlives the call.
    """
    folder.mkdir(parents=True, exist_ok=True)
    failure: Exception | None = None
    async with _started(folder, shares, cores) as processes:
        async with trio.open_nursery() as nursery:
            try:
                async with trio.open_nursery() as listening:
                    for one in processes:
                        listening.start_soon(one.listen)
                    for one in processes:
                        await one.ready.wait()
                    start = time.monotonic() + START_IN_S
                    for one in processes:
                        assert one.process.stdin is not None
                        await one.process.stdin.send_all(f"{start}\n".encode())
                    for task in meanwhile:
                        nursery.start_soon(task, start)
                    nursery.start_soon(_report_progress, processes, progress)
            except* Unavailable as group:
                failure = group.exceptions[0]
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        rows = [row for one in processes for row in read_rows(Path(one.plan.out))]
        reports = [one.report for one in processes if one.report is not None]
    rows.sort(key=lambda row: row.number)
    return Loaded(start, rows, reports, time.monotonic() - start)


@asynccontextmanager
async def _started(
    folder: Path, shares: Sequence[tuple[ClientPlan, Sequence[Due]]], cores: tuple[int, ...]
) -> AsyncIterator[list[_Process]]:
    processes: list[_Process] = []
    try:
        for plan, items in shares:
            path, errors = folder / f"client-{plan.index}.plan", folder / f"client-{plan.index}.log"
            write_plan(path, plan, items)
            with errors.open("wb") as log:
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-m", "bench.client", str(path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for us; we end it in order
                )
            confine(process.pid, cores)
            processes.append(_Process(process, plan, errors))
        yield processes
    finally:
        with trio.CancelScope(shield=True):
            for one in processes:
                await end(one.process)
        for one in processes:
            (folder / f"client-{one.plan.index}.plan").unlink(missing_ok=True)
            Path(one.plan.out).unlink(missing_ok=True)


async def _report_progress(processes: Sequence[_Process], progress: Callable[[int], None]) -> None:
    while True:
        progress(sum(one.done for one in processes))
        await trio.sleep(0.25)
