"""`python -m tests.mutants.run [NAME...]` plants each defect and shows what notices it: the cited test, and seeds.

Each mutant runs in a process of its own, forked from this one, which has loaded everything but p2pledger. Status 1
if any survives. `--write` puts their rows into docs/mutants.md; `--cited` leaves the seeds out, as `make test` does.
"""

import argparse
import contextlib
import importlib
import io
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest

from tests.mutants.mutant import FOLDER, ROOT, SIMULATORS, Mutant, Seeds, load_all
from tests.mutants.report import Outcome, page, row_of, rows_in, table

SECONDS_MAX = 120
"""For one test or one seed: a mutant that makes the suite hang is noticed, too."""


@dataclass(frozen=True, slots=True)
class Task:
    """One mutant to run."""

    mutant: Mutant
    with_seeds: bool


def run(task: Task) -> Outcome:
    """Plant it in a temporary folder and run there; to be called in a process that has not loaded p2pledger."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        task.mutant.plant(Path(name))
        os.chdir(name)
        sys.path.insert(0, name)
        signal.signal(signal.SIGALRM, _give_up)
        survived = tuple(test for test in task.mutant.tests if not _is_failed_by(test))
        seeds = task.mutant.seeds if task.with_seeds else None
        seed, invariant = (None, "") if seeds is None else _first_failing(seeds)
    return Outcome(task.mutant, survived, seed, invariant, time.monotonic() - began)


def _give_up(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"nothing within {SECONDS_MAX} s")


def _is_failed_by(test: str) -> bool:
    """Whether the cited test fails; anything else (it is missing, it cannot be collected) is no proof."""
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=no", "--timeout-method=signal"]
    with contextlib.redirect_stdout(io.StringIO()):
        status = pytest.main([*options, f"--timeout={SECONDS_MAX}", test])
    return status == pytest.ExitCode.TESTS_FAILED


def _first_failing(seeds: Seeds) -> tuple[int | None, str]:
    """(the first seed that fails, what it broke)."""
    simulate = importlib.import_module(SIMULATORS[seeds.simulator])
    for seed in range(seeds.first, seeds.beyond):
        signal.alarm(SECONDS_MAX)
        try:
            simulate.run_seed(seed, seeds.nodes)
        except Exception as error:  # a mutant may break in any way
            return seed, _named(error)
        finally:
            signal.alarm(0)
    return None, ""


def _named(error: Exception) -> str:
    """The invariant or promise that stands before the colon, or what happened instead."""
    text = str(error).removeprefix("InvariantBroken: ").splitlines()[0]
    if text.startswith("an honest "):
        return "an honest node stops"
    head = text.partition(": ")[0]
    if re.fullmatch(r"[IPF]?-?\d+b?|\w+Error", head):
        return head
    return text[:60].replace("|", "/")


def run_all(tasks: list[Task], jobs: int) -> Iterator[Outcome]:
    """In order, a fresh process for each; a bar where somebody watches."""
    for module in ("hypothesis", "trio", "msgspec", "msgpack", "nacl.signing", "lmdb", "structlog", "click"):
        __import__(module)
    assert not any(name.split(".")[0] == "p2pledger" for name in sys.modules), "p2pledger is loaded too early"
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=1) as pool:
        outcomes: Iterable[Outcome] = pool.imap(run, tasks, chunksize=1)
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import track

            outcomes = track(outcomes, "mutants", total=len(tasks), console=Console(stderr=True))
        yield from outcomes


def controls(mutants: list[Mutant]) -> list[Seeds]:
    """The worlds of all budgets: on the tree as it is, none of them fails."""
    largest: dict[tuple[str, int], Seeds] = {}
    for seeds in (mutant.seeds for mutant in mutants if mutant.seeds is not None):
        known = largest.setdefault((seeds.simulator, seeds.nodes), seeds)
        largest[seeds.simulator, seeds.nodes] = max(known, seeds, key=lambda one: one.beyond)
    return list(largest.values())


def main() -> int:
    """Run, print the table, say what survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.run", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants to run; all if none is named")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the patches are")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--cited", action="store_true", help="only the cited tests, no seeds")
    parser.add_argument("--write", action="store_true", help="write what was run into docs/mutants.md")
    arguments = parser.parse_args()
    known = {mutant.name: mutant for mutant in load_all(arguments.folder)}
    unknown = [name for name in arguments.names if name not in known]
    if unknown or (arguments.write and (arguments.cited or arguments.folder != FOLDER)):
        parser.error(f"no such mutant: {', '.join(unknown)}" if unknown else "--write needs a run with seeds")
    chosen = [known[name] for name in arguments.names] or list(known.values())
    outcomes = list(run_all([Task(mutant, not arguments.cited) for mutant in chosen], arguments.jobs))
    print(table(outcomes))
    for seeds in () if arguments.cited else controls(chosen):
        seed, invariant = _first_failing(seeds)
        if seed is not None:
            print(f"seed {seed} of {seeds.simulator}, {seeds.nodes} nodes, fails WITHOUT any mutant: {invariant}")
            return 1
    survivors = [outcome for outcome in outcomes if outcome.is_survivor(with_seeds=not arguments.cited)]
    for outcome in survivors:
        print(f"{outcome.mutant.name} SURVIVES {', '.join(outcome.survived) or 'its budget of seeds'}")
    if arguments.write:
        path = ROOT / "docs" / "mutants.md"
        fresh = {outcome.mutant.name: row_of(outcome) for outcome in outcomes if outcome not in survivors}
        rows = {row[0]: row for row in rows_in(path.read_text())} | fresh
        path.write_text(page([rows[name] for name in sorted(rows) if name in known]))
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
