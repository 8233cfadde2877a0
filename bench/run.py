"""A whole run: the environment, every stage and baseline, the results. Nothing that it starts outlives it."""

import math
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from bench.baselines import run_baseline, run_external
from bench.environment import describe
from bench.scenario import Scenario
from bench.show import Show
from bench.stage import StageRun
from bench.summary import PointResult
from p2pledger.primitives.errors import P2PLedgerError

RESULTS = "results.json"
ENVIRONMENT = "environment.json"
SCENARIO = "scenario.json"


class Results(msgspec.Struct, frozen=True):
    """What results.json holds."""

    scenario: str
    title: str
    points: list[PointResult]
    missing: list[str] = []
    """What could not be run, and what to install for it."""
    is_complete: bool = True
    failed: list[str] = []
    """Stages and baselines that broke off, with the reason; what they had measured before is among the points."""


async def run_scenario(
    scenario: Scenario, out: Path, show: Show, external: tuple[str, ...] = (), minutes: float = math.inf
) -> Results:
    """Run everything into the new folder `out`. What was measured before a failure or Ctrl-C is kept there.

    No stage begins after `minutes`; which ones did not is in the results.
    """
    ends = time.monotonic() + 60 * minutes
    out.mkdir(parents=True)
    work = out / "work"
    (out / SCENARIO).write_bytes(msgspec.json.format(msgspec.json.encode(scenario), indent=1))
    environment = describe(out, scenario.seed)
    environment["started"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    (out / ENVIRONMENT).write_bytes(msgspec.json.format(msgspec.json.encode(environment), indent=1))
    points: list[PointResult] = []
    missing: list[str] = []
    failed: list[str] = []
    is_complete = False
    try:
        for name in scenario.baselines:  # first: what comes last is what an interruption costs
            async with kept_apart(f"baseline {name}", failed, show):
                await run_baseline(name, scenario, work / name, points, missing, show)
        for stage in scenario.stages:
            for n in stage.n:
                if time.monotonic() > ends:
                    missing.append(f"stage {stage.name} n={n}: {minutes:g} minutes were over")
                    continue
                folder = work / f"{stage.name}-n{n}"
                run = StageRun(stage, n, folder, out / "raw", scenario.seed, scenario.floor_seconds, show)
                async with kept_apart(f"stage {stage.name} n={n}", failed, show):
                    await run.run(points)
                shutil.rmtree(folder, ignore_errors=True)
        if external:
            async with kept_apart("external", failed, show):
                points.append(await run_external(external, scenario, work / "external", show))
        is_complete = not failed
    finally:
        results = Results(scenario.name, scenario.title, points, missing, is_complete, failed)
        (out / RESULTS).write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))
        shutil.rmtree(work, ignore_errors=True)
    return results


@asynccontextmanager
async def kept_apart(what: str, failed: list[str], show: Show) -> AsyncIterator[None]:
    """A stage that breaks off does not take the others with it; programming errors and interruptions do."""
    try:
        yield
    except* (P2PLedgerError, OSError) as group:
        reason = f"{what}: {_first(group)}"
        show.step(f"  broken off, {reason}")
        failed.append(reason)


def load_results(folder: Path) -> Results:
    """The results in a folder; raises OSError and msgspec.ValidationError."""
    return msgspec.json.decode((folder / RESULTS).read_bytes(), type=Results)


def start(
    scenario: Scenario, out: Path, show: Show, external: tuple[str, ...] = (), minutes: float = math.inf
) -> Results:
    """`run_scenario` in an event loop of its own; raises what it raises, the first of several failures."""
    try:
        # Only at checkpoints: in the midst of starting a process, an interruption would leave it behind, unknown.
        return trio.run(
            run_scenario, scenario, out, show, external, minutes, restrict_keyboard_interrupt_to_checkpoints=True
        )
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(error: BaseException) -> BaseException:
    """The first leaf of nested groups; an interruption before all others."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    interrupted = error.subgroup(KeyboardInterrupt)
    return _first((interrupted or error).exceptions[0])
