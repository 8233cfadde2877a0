"""The short campaign inside `make test`: 1,200 worlds of at least 20 heights, and proof that they went places.

Chunks run in any order on any number of workers. Whoever finishes the last chunk adds up what all of them reached and
demands the minimums: a campaign that never met a situation has not tested it.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from p2pledger.sim.adversaries import BY_NAME
from p2pledger.sim.campaign import run_plan, run_seed
from p2pledger.sim.faults import AIMS
from p2pledger.sim.node import BOUNDARIES
from p2pledger.sim.plan import Plan, draw

UNREACHED_BOUNDARIES = {"before a stop"}
"""An honest node never stops itself."""
CHUNKS = [(4, first, first + 25) for first in range(0, 1_000, 25)] + [
    (7, first, first + 10) for first in range(0, 200, 10)
]
DIRECTED = 10_000
"""From this seed on worlds aim at what happens too rarely to be met by chance: the start of a view by NEW-VIEW."""
CHUNKS.append((4, DIRECTED, DIRECTED + 20))
HEIGHTS = 20
TIMES_MIN = 10
MESSAGES_MIN = 2_000_000
SCHEDULES_MIN = 1_000
"""Distinct event logs."""
SITUATIONS = [
    # agreement
    "committed in view 3 or later",
    "equivocation_seen",
    "evidence committed",
    "new view with a tip",
    "new view with claims of two views",
    "primary lacks the tip",
    "primary_unfair",
    "proposal_refused",
    "second new view offered",
    "tip prepared again",
    "two liars among seven",
    "view_entered",
    "view_left",
    "window full",
    # falling behind
    "blocks_synced",
    "sync_started",
    # crashes: at every boundary between effects, in every step of the protocol
    *(f"crash {where}" for where in sorted(set(BOUNDARIES.values()) - UNREACHED_BOUNDARIES)),
    *(f"crash aimed at {aim}" for aim in AIMS),
    "crash after a write",
    "crash before a write",
    "crash during recovery",
    "disk full",
    "disk lost",
    "failed write, kept",
    "failed write, lost",
    "restart with a journal",
    "stalled sync",
    # network, clocks, clients
    *(f"isolated at {aim}" for aim in AIMS),
    "client flood",
    "client retry",
    "clock jump",
    "one-way partition",
    "partition",
    # every liar had something to lie about
    *(f"lie of {name}" for name in BY_NAME if name != "Silent"),
]
"""Each must be reached at least TIMES_MIN times by all chunks together."""


@pytest.fixture(scope="session")
def tallies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "campaign"
    directory.mkdir(exist_ok=True)
    return directory


@pytest.mark.parametrize(("n", "first", "beyond"), CHUNKS)
def test_no_seed_breaks_an_invariant(n: int, first: int, beyond: int, tallies: Path) -> None:
    """Invariants 1 to 9 of docs/protocol.md hold in every world, and every world makes progress once it heals."""
    reached: Counter[str] = Counter()
    messages, traces = 0, []
    for seed in range(first, beyond):
        result = run_seed(seed, n, HEIGHTS) if seed < DIRECTED else run_plan(_directed(seed, n))
        assert max(result.heights) >= HEIGHTS
        reached.update(result.reached)
        messages += result.messages
        traces.append(result.trace)
    unfinished = tallies / f"{n}-{first}.part"
    unfinished.write_text(json.dumps({"reached": reached, "messages": messages, "traces": traces}))
    unfinished.rename(tallies / f"{n}-{first}.json")
    _demand_minimums(tallies)


def _directed(seed: int, n: int) -> Plan:
    plan = draw(seed, n, heights=HEIGHTS)
    aimed = {"isolate_at": "NewView", "isolate": 0.3, "crash_at": "NewView", "crash_aimed": 0.03}
    return replace(plan, faults=replace(plan.faults, **aimed))


def _demand_minimums(tallies: Path) -> None:
    finished = list(tallies.glob("*.json"))
    if len(finished) < len(CHUNKS):
        return
    tallies_read = [json.loads(tally.read_text()) for tally in finished]
    total: Counter[str] = Counter()
    for tally in tallies_read:
        total.update(tally["reached"])
    missed = {name: total[name] for name in SITUATIONS if total[name] < TIMES_MIN}
    assert not missed, f"the campaign hardly met these situations: {missed}"
    assert sum(tally["messages"] for tally in tallies_read) >= MESSAGES_MIN
    assert len({trace for tally in tallies_read for trace in tally["traces"]}) >= SCHEDULES_MIN


def test_the_campaign_is_large_enough() -> None:
    """Beside it `test_core.py` runs thousands of worlds of replicas alone, `test_nodes.py` whole nodes."""
    assert sum(beyond - first for _, first, beyond in CHUNKS) >= 1_000
    assert {n for n, _, _ in CHUNKS} == {4, 7}


@pytest.mark.parametrize(("seed", "n"), [(3, 4), (17, 4), (28, 4), (5, 7)])
def test_the_same_seed_gives_the_same_event_log_in_another_process(seed: int, n: int) -> None:
    """Byte for byte, whatever Python's hashes are: every message, crash, partition and clock in order."""
    command = [sys.executable, "-m", "p2pledger", "sim", "replay", str(seed), "--nodes", str(n), "--trace"]
    runs = [
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, check=True).stdout
        for hash_seed in ("1", "4242")
    ]
    assert runs[0].count(b"\n") > 1_000
    assert runs[0] == runs[1]
