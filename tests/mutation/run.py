"""`python -m tests.mutation.run [MODULE...]` counts which mutants of consensus/ and health/ a test notices.

One process collects the tests and runs them once, noting which of them reach which line. Then each mutant gets a
forked child that runs those tests, the fastest first, until one fails. A mutant that is too slow is killed as well.
Status 1 where a survivor is not explained in survivors.toml, or an explained one was killed.
"""

import argparse
import gc
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

import coverage
import pytest
from _pytest.runner import runtestprotocol

from tests.mutation import report
from tests.mutation.mutants import PACKAGE, Mutant, modules, mutants_of
from tests.mutation.planting import function_of, plant

TESTS = (
    "tests/unit/consensus",
    "tests/scenarios",
    "tests/unit/health",
    "tests/unit/client/test_health.py",
    "tests/unit/client/test_receipts.py",
)
LEFT_OUT = (
    "tests/scenarios/test_privacy.py",
    "tests/scenarios/test_recovery.py::test_a_node_that_was_away_catches_up_and_votes_again",
)
"""Whole nodes for a long time: they would cost every survivor seconds."""
CPU_S = 10
"""Each mutant may take so long, and five times what its tests took without it."""
WALL_S = 600
MEMORY_BYTES = 2 << 30
OPTIONS = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=short", "--hypothesis-profile=mutation")


@dataclass
class Campaign:
    """A pytest plugin that runs the collected tests once, and then once more for every mutant."""

    mutants: list[Mutant]
    jobs: int
    out: TextIO
    survived: list[Mutant] = field(default_factory=list)
    done: int = 0
    is_baseline_good: bool = False
    _items: dict[str, pytest.Item] = field(default_factory=dict)
    _cpu_s: dict[str, float] = field(default_factory=dict)
    _coverage: coverage.CoverageData | None = None
    _kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many mutants of a function a test has killed."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._items = {item.nodeid: item for item in session.items}
        for mutant in self.mutants:
            function_of(mutant)
        failed = self._baseline()
        if failed:
            print(f"these fail without any mutant: {', '.join(failed)}", file=self.out)
            return True
        self.is_baseline_good = bool(self._items)
        gc.collect()
        gc.freeze()
        self._run_all()
        return True

    def _baseline(self) -> list[str]:
        """Which test reaches which line, and how long it takes; the tests that fail."""
        tracer = coverage.Coverage(data_file=None, include=[f"{PACKAGE}/*"], config_file=False)
        tracer.start()
        failed = []
        for name, item in self._items.items():
            tracer.switch_context(name)
            began = time.process_time()
            if not _passes(item):
                failed.append(name)
            self._cpu_s[name] = time.process_time() - began
        tracer.stop()
        self._coverage = tracer.get_data()
        print(f"{len(self._items)} tests, {sum(self._cpu_s.values()):.0f} s of CPU", file=self.out, flush=True)
        return failed

    def _tests_of(self, mutant: Mutant) -> list[str]:
        """Those that reach it; first whatever killed others of its function, then the fastest."""
        assert self._coverage is not None
        by_line = self._coverage.contexts_by_lineno(str(mutant.path))
        names = {name for line in mutant.lines for name in by_line.get(line, ()) if name in self._items}
        return sorted(names, key=lambda name: (-self._kills[mutant.where, name], self._cpu_s[name], name))

    def _run_all(self) -> None:
        running: dict[int, Child] = {}
        for mutant in self.mutants:
            tests = self._tests_of(mutant)
            if not tests:
                self._survives(mutant)
                continue
            if len(running) == self.jobs:
                self._wait(running)
            child = self._fork(mutant, tests)
            running[child.process] = child
        while running:
            self._wait(running)
        order = {mutant.name: place for place, mutant in enumerate(self.mutants)}
        self.survived.sort(key=lambda mutant: order[mutant.name])

    def _wait(self, running: dict[int, "Child"]) -> None:
        process, status = os.wait()
        child = running.pop(process)
        with os.fdopen(child.killer) as killer:
            self._kills[child.mutant.where, killer.read()] += 1
        if os.waitstatus_to_exitcode(status) == 0:
            self._survives(child.mutant)
        else:
            self.done += 1

    def _survives(self, mutant: Mutant) -> None:
        self.done += 1
        self.survived.append(mutant)
        print(f"{self.done}/{len(self.mutants)} survived {mutant.name}", file=self.out, flush=True)

    def _fork(self, mutant: Mutant, tests: list[str]) -> "Child":
        limit_s = CPU_S + 5 * sum(self._cpu_s[name] for name in tests)
        reader, writer = os.pipe()
        process = os.fork()
        if process == 0:
            status = 1
            try:
                status = _status(mutant, [self._items[name] for name in tests], limit_s, writer)
            finally:
                os._exit(status)
        os.close(writer)
        return Child(mutant, process, reader)


@dataclass(frozen=True, slots=True)
class Child:
    """A process that runs the tests of one mutant."""

    mutant: Mutant
    process: int
    killer: int
    """Where it says which test failed."""


def _status(mutant: Mutant, items: list[pytest.Item], limit_s: float, killer: int) -> int:
    """0 if no test fails. To be called in a process of its own, which does not outlive it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s) + 1, int(limit_s) + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    signal.alarm(WALL_S)
    plant(mutant)
    for item in items:
        if not _passes(item):
            os.write(killer, item.nodeid.encode())
            return 1
    return 0


def _passes(item: pytest.Item) -> bool:
    return not any(each.failed for each in runtestprotocol(item, log=False, nextitem=None))


def run(mutants: list[Mutant], tests: tuple[str, ...], jobs: int, out: TextIO) -> Campaign:
    """Run the tests for every mutant; raises RuntimeError where they fail without any."""
    import hypothesis

    hypothesis.settings.register_profile(
        "mutation",
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    )
    campaign = Campaign(mutants, jobs, out)
    left_out = [f"--deselect={test}" for test in LEFT_OUT]
    pytest.main([*OPTIONS, *left_out, *tests], plugins=[campaign])
    if not campaign.is_baseline_good or campaign.done != len(mutants):
        raise RuntimeError("the tests must pass before they can judge mutants")
    return campaign


def chosen(names: list[str], functions: list[str]) -> Iterator[Mutant]:
    """The mutants of these modules (all, if none is named), and of these functions only if any are named."""
    for module in names or modules():
        for mutant in mutants_of(module):
            if not functions or mutant.function in functions:
                yield mutant


def main() -> int:
    """Run, print the scores, say what survived without an explanation."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.run", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="as in consensus.tally; all if none is named")
    parser.add_argument("--functions", nargs="+", default=[], metavar="NAME", help="only these functions")
    parser.add_argument("--tests", nargs="+", default=list(TESTS), metavar="TEST", help="what may notice a mutant")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--list", action="store_true", help="print the names of the mutants and stop")
    parser.add_argument("--write", action="store_true", help="write docs/mutation.md from a run of everything")
    arguments = parser.parse_args()
    is_whole = not arguments.modules and not arguments.functions and arguments.tests == list(TESTS)
    if arguments.write and not is_whole:
        parser.error("--write needs a run of everything")
    mutants = list(chosen(arguments.modules, arguments.functions))
    if arguments.list:
        print("\n".join(mutant.name for mutant in mutants))
        return 0
    out = os.fdopen(os.dup(2), "w")
    campaign = run(mutants, tuple(arguments.tests), arguments.jobs, out)
    print(report.table(mutants, campaign.survived))
    if arguments.tests != list(TESTS):
        return 0  # explanations are about all tests
    wrong = report.unexplained(mutants, campaign.survived)
    print("\n".join(wrong))
    if arguments.write:
        report.write(mutants, campaign.survived)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
